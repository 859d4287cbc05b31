"""Request targets of the distribution protocol."""


def manifest(repo, reference):
    return "/v2/%s/manifests/%s" % (repo, reference)


def blob(repo, digest):
    return "/v2/%s/blobs/%s" % (repo, digest)


def tags(repo):
    return "/v2/%s/tags/list" % repo


def referrers(repo, digest):
    return "/v2/%s/referrers/%s" % (repo, digest)
