"""The servers: larder, its upstream, and what it is compared with.

A peer is a class with a `name`, the program it needs in `needs`, and start(world), which writes a configuration into self.folder, calls
self.spawn() and returns self. Settings are those that the peer's own documentation recommends for this work. Every peer has
as many workers as the load generator leaves processors (Bench.workers) where it can be told, no access log, and room for everything that a
scenario asks for."""
import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from harness import GIB, OPEN_FILES, Failed, Process, free_port, get, program

ROOT = os.geteuid() == 0
TLS_CIPHER = "ECDHE-ECDSA-AES128-GCM-SHA256"  # what larder chooses with a client that offers AES-GCM


class Origin(Process):
    """larder-origin. `blobs` has (digest, size) in the order of --blob; `images` has NAME -> digest."""

    name = "origin"

    def start(self, *options):
        self.spawn([self.bench.tools / "larder-origin", "-l", f"127.0.0.1:{self.port}", *options])
        end = time.monotonic() + 120
        while "\nready\n" not in (text := (self.folder / "log").read_text()):
            if time.monotonic() > end:
                raise Failed(f"larder-origin is not ready after 120 s: {self.last_words()}")
            time.sleep(0.02)
        self.blobs = [(m[1], int(m[2])) for m in re.finditer(r"^blob (\S+) (\d+)$", text, re.M)]
        self.images = dict(re.findall(r"^image (\S+) (\S+)$", text, re.M))
        return self

    def stats(self, reset=False):
        return json.loads(get(self.url + "/stats" + ("?reset" if reset else ""))[0])


class World:
    """What a scenario offers to the servers: the upstream, and for those that serve files the same bytes as files. Paths are the
    upstream's."""

    def __init__(self, bench, origin, paths=()):
        self.bench, self.origin, self.paths = bench, origin, paths
        self.types = {}  # path -> media type
        self.folder = None

    def www(self):
        if self.folder is not None:
            return self.folder
        folder = self.bench.folder("www")
        self.bench.stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for path in self.paths:
            file = folder / path[1:]
            file.parent.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(self.origin.url + path, timeout=60) as answer, open(file, "wb") as out:
                shutil.copyfileobj(answer, out, 1 << 20)
                out.flush()
                os.fsync(out.fileno())
                os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # whoever reads it first has it in its account
                self.types[path] = answer.headers["Content-Type"]
        self.folder = folder
        return folder


class Peer(Process):
    needs = None

    def path(self, path):
        """What to ask this server for, by the path at the upstream."""
        return path

    def image(self, name):
        return self.path("/v2/" + name)[4:]

    def program(self):
        found = program(self.needs)
        if found is None:
            raise Failed(f"{self.needs} is not installed (deps/install.sh bench)")
        return found


class Direct(Peer):
    """The upstream itself, with nothing between."""

    name = "direct"

    def start(self, world):
        self.port, self.child = world.origin.port, None
        return self

    def pids(self):
        return []


class Larder(Peer):
    """larder with one rule, b/* from the upstream, or more by `options`:
    rules: so many more; access: log requests; store: a folder that exists."""

    name = "larder"

    def __init__(self, bench, name=None, rules=0, access=False, store=None):
        super().__init__(bench, name)
        self.rules, self.access, self.store = rules, access, store
        self.admin = free_port()
        self.tls_port = free_port()

    def path(self, path):
        return path.replace("/v2/", "/v2/b/", 1)

    def start(self, world):
        more = "".join(f"  - name: r{i}\n    source: origin.test/r{i}/*\n    target: r{i}/*\n" for i in range(self.rules))
        self.config = self.folder / "config.yaml"
        self.config.write_text(
            f"listen:\n  - address: 127.0.0.1:{self.port}\n"
            f"  - address: 127.0.0.1:{self.tls_port}\n    tls: {{certificate: {self.bench.certificate()[0]}, key: {self.bench.certificate()[1]}}}\n"
            f"admin:\n  address: 127.0.0.1:{self.admin}\n"
            f"workers: {self.bench.workers}\n"
            f"store:\n  path: {self.store or self.folder / 'store'}\n"
            "defaults:\n  tag_ttl: 1h\n"
            "client:\n  idle_timeout: 1h\n  max_connections: 20000\n"
            "upstreams:\n"
            f"  - registry: origin.test\n    endpoints: [http://127.0.0.1:{world.origin.port}]\n"
            f"rules:\n  - name: b\n    source: origin.test/*\n    target: b/*\n{more}"
            f"log: {{access: {'true' if self.access else 'false'}, level: warn}}\n")
        self.spawn([self.bench.larder, "serve", "-f", self.config])
        return self

    def scrape(self):
        return get(f"http://127.0.0.1:{self.admin}/metrics")[0].decode()

    def metric(self, name):
        return int(re.search(rf"^larder_{re.escape(name)} (\d+)$", self.scrape(), re.M)[1])

    def replace(self, text, signal_too=False):
        """Another configuration, moved into the file's place, and taken by the server that runs: after how many seconds."""
        taken = 'config_reloads_total{result="taken"}'
        before = self.metric(taken)
        new = self.folder / "config.new"
        new.write_text(text)
        begin = time.monotonic()
        new.rename(self.config)
        if signal_too:
            self.child.send_signal(signal.SIGHUP)
        while self.metric(taken) == before:
            if time.monotonic() > begin + 30:
                raise Failed(f"a changed configuration was not taken within 30 s: {self.last_words()}")
            time.sleep(0.005)
        return time.monotonic() - begin

    def limit(self, size):
        """Lets the store have so many bytes from now on."""
        self.replace(re.sub(r"^store:\n(  max_size: .*\n)?", f"store:\n  max_size: {size}\n", self.config.read_text(), flags=re.M), True)

    def command(self, *words):
        """What the command says, as JSON; it talks to the server that runs."""
        done = subprocess.run([self.bench.larder, *words, "-o", "json", "-f", self.config], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"larder {' '.join(words)} ended with status {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)


# --- what serves files ----------------------------------------------------------------------------------------------


class Nginx(Peer):
    """nginx with static files: sendfile, files kept open, a listening socket for each worker."""

    name = "nginx"
    needs = "nginx"

    def __init__(self, bench, name=None):
        super().__init__(bench, name)
        self.tls_port = free_port()

    def common(self):
        paths = "".join(f"  {kind}_temp_path {self.folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return (f"daemon off;\nworker_processes {self.bench.workers};\npid {self.folder}/pid;\nerror_log stderr warn;\n"
                f"worker_rlimit_nofile {OPEN_FILES};\n" + ("user root;\n" if ROOT else "") +
                "events { worker_connections 15000; multi_accept on; }\n"
                "http {\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  tcp_nodelay on;\n"
                "  keepalive_timeout 3600s;\n  keepalive_requests 1000000000;\n"
                "  open_file_cache max=10000 inactive=1h;\n  open_file_cache_valid 1h;\n  open_file_cache_min_uses 1;\n"
                f"  types {{}}\n  default_type application/octet-stream;\n{paths}")

    def begin(self, text):
        config = self.folder / "nginx.conf"
        config.write_text(text)
        self.spawn([self.program(), "-c", config])
        return self

    def start(self, world):
        www = world.www()
        types = "".join(f"    location = {path} {{ default_type {kind}; }}\n" for path, kind in world.types.items())
        return self.begin(self.common() + f"  server {{\n    listen 127.0.0.1:{self.port} reuseport backlog=4096;\n"
                          f"    listen 127.0.0.1:{self.tls_port} ssl reuseport backlog=4096;\n"
                          f"    ssl_certificate {self.bench.certificate()[0]};\n    ssl_certificate_key {self.bench.certificate()[1]};\n"
                          f"    ssl_protocols TLSv1.2;\n    ssl_ciphers {TLS_CIPHER};\n    ssl_session_cache shared:s:10m;\n"
                          f"    root {www};\n{types}  }}\n}}\n")


class H2o(Peer):
    """h2o with static files; it keeps files open by itself, and logs only when told to."""

    name = "h2o"
    needs = "h2o"

    def __init__(self, bench, name=None):
        super().__init__(bench, name)
        self.tls_port = free_port()

    def start(self, world):
        www = world.www()
        folders = {path.rpartition("/")[0]: kind for path, kind in world.types.items() if "/manifests/" in path}
        config = self.folder / "h2o.conf"
        config.write_text(
            f"listen: {{host: 127.0.0.1, port: {self.port}}}\nlisten:\n  host: 127.0.0.1\n  port: {self.tls_port}\n  ssl:\n"
            f"    certificate-file: {self.bench.certificate()[0]}\n    key-file: {self.bench.certificate()[1]}\n"
            f"    minimum-version: TLSv1.2\n    maximum-version: TLSv1.2\n    cipher-suite: {TLS_CIPHER}\nnum-threads: {self.bench.workers}\nmax-connections: 20000\n"
            "http1-request-timeout: 3600\nhttp1-upgrade-to-http2: OFF\n" + ("user: root\n" if ROOT else "") +
            "hosts:\n  default:\n    paths:\n"
            + "".join(f"      {f}:\n        file.dir: {www}{f}\n        file.mime.setdefaulttype: {kind}\n" for f, kind in folders.items())
            + f"      /:\n        file.dir: {www}\n        file.mime.setdefaulttype: application/octet-stream\n")
        self.spawn([self.program(), "-c", config])
        return self


class Bare(Peer):
    """larder-bare: the least that a server can do. No peer, but the limit of this machine for small answers."""

    name = "bare"

    def start(self, world):
        self.spawn([self.bench.tools / "larder-bare", f"127.0.0.1:{self.port}", self.bench.workers, world.www(), *world.types])
        return self


# --- what fetches ---------------------------------------------------------------------------------------------------


class NginxCache(Nginx):
    """nginx with proxy_cache on disk: one request fills, the others wait for it (proxy_cache_lock) as long as it takes."""

    name = "nginx-cache"

    def start(self, world):
        return self.begin(
            self.common() +
            f"  proxy_cache_path {self.folder}/cache levels=1:2 keys_zone=c:32m max_size=16g inactive=1d use_temp_path=off;\n"
            f"  upstream origin {{ server 127.0.0.1:{world.origin.port}; keepalive 64; keepalive_requests 1000000; }}\n"
            f"  server {{\n    listen 127.0.0.1:{self.port} reuseport backlog=4096;\n    location / {{\n"
            "      proxy_pass http://origin;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n"
            "      proxy_cache c;\n      proxy_cache_valid 200 1h;\n      proxy_cache_lock on;\n"
            "      proxy_cache_lock_timeout 10m;\n      proxy_cache_lock_age 10m;\n"
            "      proxy_buffers 16 64k;\n      proxy_buffer_size 16k;\n      proxy_busy_buffers_size 128k;\n"
            "    }\n  }\n}\n")


class DockerRegistry(Peer):
    """docker-registry as a pull-through cache with its storage on disk and descriptors in memory."""

    name = "docker-registry"
    needs = "docker-registry"

    def start(self, world):
        config = self.folder / "registry.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage:\n  filesystem: {{rootdirectory: {self.folder}/data, maxthreads: 100}}\n"
            "  cache: {blobdescriptor: inmemory}\n  delete: {enabled: true}\n"
            f"proxy: {{remoteurl: 'http://127.0.0.1:{world.origin.port}'}}\n"
            f"http: {{addr: '127.0.0.1:{self.port}'}}\n")
        self.spawn([self.program(), "serve", config])
        return self


class Varnish(Peer):
    """varnish with its storage in memory, streaming what it fetches to everybody who waits for it."""

    name = "varnish"
    needs = "varnishd"

    def start(self, world):
        vcl = self.folder / "larder.vcl"
        vcl.write_text(
            f'vcl 4.1;\nbackend origin {{ .host = "127.0.0.1"; .port = "{world.origin.port}"; .first_byte_timeout = 120s; }}\n'
            "sub vcl_backend_response { set beresp.ttl = 1h; set beresp.do_stream = true; }\n")
        self.spawn([self.program(), "-F", *(["-j", "none"] if ROOT else []), "-n", self.folder / "run", "-f", vcl,
                    "-a", f"127.0.0.1:{self.port}", "-s", f"malloc,{4 * GIB}", "-t", "3600", "-p", "timeout_idle=3600",
                    "-p", "thread_pool_min=200", "-p", "thread_pool_max=5000", "-p", "listen_depth=4096"])
        return self


class TrafficServer(Peer):
    """trafficserver with a cache file, readers while a writer is at it, and requests that wait for the writer."""

    name = "trafficserver"
    needs = "traffic_server"
    SETTINGS = {
        "exec_thread.autoconfig": 0,
        "http.cache.required_headers": 0,  # the upstream sends neither Expires nor Cache-Control
        "http.insert_response_via_str": 0, "reverse_proxy.enabled": 1, "url_remap.remap_required": 1,
        "cache.enable_read_while_writer": 1, "cache.read_while_writer.max_retries": 10, "cache.read_while_writer_retry.delay": 50,
        "http.background_fill_active_timeout": 0, "http.cache.max_open_read_retries": 1200, "http.cache.open_read_retry_time": 50,
        "http.cache.open_write_fail_action": 5, "cache.max_doc_size": 0, "cache.ram_cache.size": 2 * GIB,
        "cache.ram_cache_cutoff": 128 << 20, "log.logging_enabled": 0, "http.keep_alive_no_activity_timeout_in": 3600,
        "net.connections_throttle": 19000, "net.max_connections_in": 19000,
    }
    FLOATS = {"http.background_fill_completed_threshold": 0.0}

    def start(self, world):
        binary = self.program()
        root = self.folder
        for name in ("etc", "cache", "logs", "run", "modules"):
            (root / name).mkdir()
        etc = root / "etc"
        settings = {**self.SETTINGS, "exec_thread.limit": self.bench.workers}
        text = [f"CONFIG proxy.config.{k} INT {v}" for k, v in settings.items()]
        text += [f"CONFIG proxy.config.{k} FLOAT {v}" for k, v in self.FLOATS.items()]
        text.append(f"CONFIG proxy.config.http.server_ports STRING {self.port}:ip-in=127.0.0.1")
        if ROOT:
            text.append("CONFIG proxy.config.admin.user_id STRING trafficserver")
        (etc / "records.config").write_text("\n".join(text) + "\n")
        (etc / "storage.config").write_text(f"{root}/cache 6G\n")
        (etc / "remap.config").write_text(f"map / http://127.0.0.1:{world.origin.port}/\n")
        (etc / "ip_allow.yaml").write_text("ip_allow:\n  - {apply: in, ip_addrs: 127.0.0.0/8, action: allow, methods: ALL}\n")
        for name in ("plugin.config", "ssl_multicert.config", "hosting.config", "volume.config", "parent.config", "cache.config"):
            (etc / name).write_text("")
        layout = {"prefix": root, "exec_prefix": root, "bindir": "/usr/bin", "sbindir": "/usr/sbin", "sysconfdir": etc,
                  "datadir": root / "cache", "includedir": "/usr/include", "libdir": "/usr/lib", "libexecdir": root / "modules",
                  "localstatedir": root / "run", "runtimedir": root / "run", "logdir": root / "logs", "mandir": root, "infodir": root,
                  "cachedir": root / "cache"}
        (root / "runroot.yaml").write_text("".join(f"{k}: {v}\n" for k, v in layout.items()))
        if ROOT:
            self.give_away()
        self.spawn([binary, f"--run-root={root}/runroot.yaml"])
        self.wait_for_cache()
        return self

    def give_away(self):
        """It does not run as root, and must reach its folder."""
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam("trafficserver")
            for path in [self.folder, *Path(self.folder).rglob("*")]:
                os.chown(path, user.pw_uid, user.pw_gid)

    def wait_for_cache(self):
        """It listens before its cache is ready, and passes on what is asked until then."""
        diags = self.folder / "logs" / "diags.log"
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if diags.exists() and "cache enabled" in diags.read_text(errors="replace"):
                return
            time.sleep(0.05)
        raise Failed(f"its cache is not ready after 30 s: {self.last_words()}")


STATIC = [Nginx, H2o]
CACHES = [Larder, NginxCache, DockerRegistry, Varnish, TrafficServer]
NO_FETCH = "it serves files that are there, and fetches nothing"
PEERS = {kind.name: kind for kind in (Direct, Bare, Nginx, H2o, NginxCache, DockerRegistry, Varnish, TrafficServer)}
