#!/usr/bin/python3
"""The two halves of the demonstration in examples/run.sh.

    demo.py image FOLDER           writes a small OCI image (an image layout) into FOLDER, the same bytes every time
    demo.py pull IMAGE ADMIN       pulls IMAGE with skopeo twice and says what larder, whose admin address is ADMIN, had to fetch
"""
import collections
import gzip
import hashlib
import io
import json
import pathlib
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request

LAYERS = {"bin.dat": 6 << 20, "lib.dat": 3 << 20, "etc.dat": 64 << 10}


def write_blob(folder, data, media):
    digest = hashlib.sha256(data).hexdigest()
    path = folder / "blobs" / "sha256" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}


def make_layer(name, size):
    """A tar with one file that does not compress, as bytes: plain for its diff id, gzipped for the registry."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.size = size
        tar.addfile(info, io.BytesIO(random.Random(name).randbytes(size)))
    return plain.getvalue(), gzip.compress(plain.getvalue(), 1, mtime=0)


def make_image(folder):
    layers, diff_ids = [], []
    for name, size in LAYERS.items():
        plain, packed = make_layer(name, size)
        layers.append(write_blob(folder, packed, "application/vnd.oci.image.layer.v1.tar+gzip"))
        diff_ids.append("sha256:" + hashlib.sha256(plain).hexdigest())
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": write_blob(folder, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": layers,
    }
    entry = write_blob(folder, json.dumps(manifest).encode(), manifest["mediaType"])
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


def read_metrics(admin):
    """(requests of clients by cache result, bytes from upstream, bytes to clients) since larder started."""
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    results, received, sent = collections.Counter(), 0, 0
    for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.M):
        if name == "larder_requests_total":
            cache = re.search(r'cache="([^"]*)"', labels).group(1)
            if cache != "none":  # a ping, a probe for TLS
                results[cache] += int(float(value))
        elif name == "larder_upstream_received_bytes_total":
            received += int(float(value))
        elif name == "larder_client_sent_bytes_total":
            sent += int(float(value))
    return results, received, sent


def pull(image, admin):
    before = read_metrics(admin)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", f"docker://{image}", f"dir:{folder}"],
                       check=True)
        took = time.monotonic() - start
    after = read_metrics(admin)
    results = ", ".join(f"{n} {cache}" for cache, n in sorted((after[0] - before[0]).items())) or "no requests"
    return f"{took:.2f} s: {results}; {(after[1] - before[1]) / 1e6:.2f} MB from upstream, {(after[2] - before[2]) / 1e6:.2f} MB to the client"


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "image":
        make_image(pathlib.Path(sys.argv[2]))
    elif len(sys.argv) == 4 and sys.argv[1] == "pull":
        for name in ("first pull ", "second pull"):
            print(f"{name}  {pull(sys.argv[2], sys.argv[3])}", flush=True)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
