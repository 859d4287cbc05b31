"""A containerd of the test's own, with everything that it keeps in the test's folder."""

import os
import shutil
import subprocess

from .larder import wait_until


class Containerd:
    def __init__(self, directory):
        self.directory = str(directory)
        self.hosts = os.path.join(self.directory, "hosts")
        self.socket = os.path.join(self.directory, "s.sock")
        self.log_file = os.path.join(self.directory, "log")
        self.process = None

    def mirror(self, registry, url):
        """hosts.toml: `registry` is reached through `url`, and through nothing else."""
        os.makedirs(os.path.join(self.hosts, registry))
        with open(os.path.join(self.hosts, registry, "hosts.toml"), "w") as out:
            out.write('server = "http://127.0.0.1:1"\n\n[host."%s"]\n  capabilities = ["pull", "resolve"]\n' % url)

    def start(self):
        assert shutil.which("containerd"), "containerd is not installed"
        os.makedirs(self.directory, exist_ok=True)
        config = os.path.join(self.directory, "config.toml")
        with open(config, "w") as out:
            out.write('version = 2\nroot = "{0}/root"\nstate = "{0}/state"\n'
                      'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
                      '[grpc]\n  address = "{0}/s.sock"\n[ttrpc]\n  address = "{0}/t.sock"\n'.format(self.directory))
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(["containerd", "-c", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, "containerd answers")
        return self

    def _answers(self):
        assert self.process.poll() is None, "containerd ended: " + open(self.log_file).read()[-2000:]
        return os.path.exists(self.socket) and self.ctr("version").returncode == 0

    def ctr(self, *arguments, namespace="test"):
        return subprocess.run(["ctr", "--address", self.socket, "--namespace", namespace, *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)

    def pull(self, reference):
        return self.ctr("images", "pull", "--hosts-dir", self.hosts, "--snapshotter", "native", reference)

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
