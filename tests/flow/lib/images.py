"""Images whose every byte follows from their names, so that a test can say what must arrive."""

import gzip
import hashlib
import io
import json
import random
import tarfile

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"

KIB, MIB = 1024, 1024 * 1024


def digest(data, algorithm="sha256"):
    return "%s:%s" % (algorithm, hashlib.new(algorithm, data).hexdigest())


def blob(name, size):
    """`size` bytes that do not compress and differ for every name."""
    return random.Random("larder/" + name).randbytes(size)


def layer(name, size, compress=True):
    """A real layer: a tar with one file of `size` bytes. Returns (bytes, diff id)."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("data/%s.bin" % name.replace("/", "-"))
        info.size = size
        info.mtime = 1700000000
        tar.addfile(info, io.BytesIO(blob(name, size)))
    plain = raw.getvalue()
    data = gzip.compress(plain, compresslevel=1, mtime=0) if compress else plain
    return data, digest(plain)


def to_json(document):
    return json.dumps(document, indent=1, sort_keys=True).encode()


class Image:
    """One platform's image. `blobs` has the config and the layers by digest, `manifest` the exact bytes."""

    def __init__(self, name, layer_sizes=(64 * KIB,), algorithm="sha256", docker=False, arch="amd64"):
        self.name, self.algorithm, self.arch = name, algorithm, arch
        self.media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        layers = [layer("%s/%d" % (name, n), size) for n, size in enumerate(layer_sizes)]
        self.layers = [digest(data, algorithm) for data, _ in layers]
        self.blobs = {digest(data, algorithm): data for data, _ in layers}
        self.config_bytes = to_json({
            "architecture": arch, "os": "linux", "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/true"], "Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
        })
        self.config = digest(self.config_bytes, algorithm)
        self.blobs[self.config] = self.config_bytes
        self.manifest = to_json({
            "schemaVersion": 2, "mediaType": self.media_type,
            "config": {"mediaType": DOCKER_CONFIG if docker else OCI_CONFIG,
                       "digest": self.config, "size": len(self.config_bytes)},
            "layers": [{"mediaType": DOCKER_LAYER if docker else OCI_LAYER, "digest": d, "size": len(self.blobs[d])}
                       for d in self.layers],
        })
        self.digest = digest(self.manifest, algorithm)

    def manifests(self):
        return {self.digest: (self.media_type, self.manifest)}


class Index:
    """Several images under one index (or Docker list)."""

    def __init__(self, images, docker=False):
        self.images = list(images)
        self.media_type = DOCKER_LIST if docker else OCI_INDEX
        self.manifest = to_json({
            "schemaVersion": 2, "mediaType": self.media_type,
            "manifests": [{"mediaType": i.media_type, "digest": i.digest, "size": len(i.manifest),
                           "platform": {"os": "linux", "architecture": i.arch}} for i in self.images],
        })
        self.digest = digest(self.manifest)
        self.blobs = {d: data for i in self.images for d, data in i.blobs.items()}

    def manifests(self):
        found = {self.digest: (self.media_type, self.manifest)}
        for image in self.images:
            found.update(image.manifests())
        return found
