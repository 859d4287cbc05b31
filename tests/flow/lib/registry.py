"""Debian's docker-registry as a real upstream: started on a free port with its files in the test's folder."""

import os
import re
import shutil
import subprocess

from .client import request
from .larder import wait_until, yaml_text
from .ports import free_port

# A line of the registry's access log (Apache's combined format): ... "GET /v2/... HTTP/1.1" 200 ...
_ACCESS = re.compile(r'"([A-Z]+) (\S+) HTTP/1\.[01]" (\d{3}) ')


class DockerRegistry:
    def __init__(self, directory):
        self.directory = str(directory)
        self.port = free_port()
        self.address = ("127.0.0.1", self.port)
        self.log_file = os.path.join(self.directory, "log")
        self.process = None
        self._forgotten = 0

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    def start(self):
        program = shutil.which("docker-registry")
        assert program, "docker-registry is not installed"
        os.makedirs(self.directory, exist_ok=True)
        config = os.path.join(self.directory, "registry.yml")
        with open(config, "w") as out:
            out.write(yaml_text({
                "version": 0.1,
                "log": {"accesslog": {"disabled": False}, "level": "error"},
                "storage": {"filesystem": {"rootdirectory": os.path.join(self.directory, "data")}},
                "http": {"addr": "127.0.0.1:%d" % self.port},
            }))
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen([program, "serve", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, "docker-registry answers")
        return self

    def _answers(self):
        assert self.process.poll() is None, "docker-registry ended: " + open(self.log_file).read()[-2000:]
        try:
            return request(self.address, "GET", "/v2/").status == 200
        except OSError:
            return False

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def push(self, repo, image, tag):
        """An Image or an Index, by plain HTTP."""
        for digest, data in image.blobs.items():
            self._put_blob(repo, digest, data)
        manifests = image.manifests()
        for digest, (media_type, data) in manifests.items():
            if digest != image.digest:
                self._put_manifest(repo, digest, media_type, data)
        self._put_manifest(repo, tag, *manifests[image.digest])

    def _send(self, method, target, headers, body, expected):
        headers = dict({"Host": "127.0.0.1:%d" % self.port}, **headers)
        r = request(self.address, method, target, headers, body=body)
        assert r.status == expected, (r, r.body)
        return r

    def _put_blob(self, repo, digest, data):
        r = self._send("POST", "/v2/%s/blobs/uploads/" % repo, {}, b"", 202)
        location = r.header("Location").replace(self.url, "", 1)
        self._send("PUT", "%s%sdigest=%s" % (location, "&" if "?" in location else "?", digest),
                   {"Content-Type": "application/octet-stream"}, data, 201)

    def _put_manifest(self, repo, reference, media_type, data):
        self._send("PUT", "/v2/%s/manifests/%s" % (repo, reference), {"Content-Type": media_type}, data, 201)

    # ---- what it was asked ----

    def requests(self):
        """(method, target, status) of every request since the start, or since forget()."""
        with open(self.log_file, errors="replace") as log:
            return [(m[1], m[2], int(m[3])) for m in map(_ACCESS.search, log) if m][self._forgotten:]

    def forget(self):
        self._forgotten = 0
        self._forgotten = len(self.requests())

    def count(self, method=None, target=None):
        return sum((method is None or m == method) and (target is None or bool(target.search(t)))
                   for m, t, _ in self.requests())
