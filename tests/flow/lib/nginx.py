"""nginx as an independent server: a registry laid out as files, by TLS 1.2."""

import os
import shutil
import socket
import subprocess

from .larder import wait_until
from .ports import free_port


class Nginx:
    def __init__(self, directory, certificate, settings=""):
        self.directory, self.certificate, self.settings = str(directory), certificate, settings
        self.www = os.path.join(self.directory, "www")
        self.port = free_port()
        self.types = {}
        self.process = None

    @property
    def url(self):
        return "https://localhost:%d" % self.port

    def add(self, repo, image, tag):
        """Before start: the types of manifests are part of the configuration."""
        for name, data in image.blobs.items():
            self._put("/v2/%s/blobs/%s" % (repo, name), data)
        for name, (media_type, data) in image.manifests().items():
            for reference in (name, tag) if name == image.digest else (name,):
                self.types["/v2/%s/manifests/%s" % (repo, reference)] = media_type
                self._put("/v2/%s/manifests/%s" % (repo, reference), data)
        return image

    def _put(self, path, data):
        file = self.www + path
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as out:
            out.write(data)

    def start(self):
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        assert program, "nginx is not installed"
        os.makedirs(self.www, exist_ok=True)
        config = os.path.join(self.directory, "nginx.conf")
        folders = "".join("  %s_temp_path %s/%s;\n" % (kind, self.directory, kind)
                          for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        types = "".join("    location = %s { default_type %s; }\n" % item for item in self.types.items())
        with open(config, "w") as out:
            out.write("daemon off;\nworker_processes 1;\npid %s/pid;\nerror_log stderr warn;\n" % self.directory)
            out.write("user root;\n" if os.geteuid() == 0 else "")
            out.write("events { worker_connections 512; }\nhttp {\n  access_log %s/access;\n  sendfile on;\n  types {}\n"
                      "  default_type application/octet-stream;\n%s" % (self.directory, folders))
            out.write("  server {\n    listen 127.0.0.1:%d ssl;\n    root %s;\n    ssl_certificate %s;\n    ssl_certificate_key %s;\n"
                      "    ssl_protocols TLSv1.2;\n    ssl_session_cache shared:s:1m;\n    ssl_session_tickets off;\n%s%s  }\n}\n"
                      % (self.port, self.www, self.certificate.chain_file, self.certificate.key_file, self.settings, types))
        self.log_file = os.path.join(self.directory, "log")
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen([program, "-c", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, "nginx answers")
        return self

    def _answers(self):
        assert self.process.poll() is None, "nginx ended: " + open(self.log_file).read()[-2000:]
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    def requests(self):
        """Lines of the access log."""
        with open(os.path.join(self.directory, "access"), errors="replace") as log:
            return log.read().splitlines()

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
