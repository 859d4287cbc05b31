"""What stands in README.md and in examples/ is true: configurations are taken, what is named exists, and an installation has what it should."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from lib import secrets
from lib.images import Image
from lib.larder import run

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
MANIFESTS = ["kubernetes.yaml", "kubernetes-central.yaml"]


def blocks(language):
    return re.findall(r"^```%s\n(.*?)^```$" % language, README, re.M | re.S)


def example(name):
    return (ROOT / "examples" / name).read_text()


def manifests(name):
    return list(yaml.safe_load_all(example(name)))


def of_kind(name, *kinds):
    (found,) = [m for m in manifests(name) if m["kind"] in kinds]
    return found


def config_of(name):
    return of_kind(name, "ConfigMap")["data"]["config.yaml"]


def check(tmp_path, text, leaf):
    (tmp_path / "tls.crt").write_text(Path(leaf.chain_file).read_text())
    (tmp_path / "tls.key").write_text(Path(leaf.key_file).read_text())
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return run("check", "-f", str(file))


@pytest.mark.parametrize("text", blocks("yaml"), ids=lambda text: text.split(":")[0])
def test_configurations_of_the_readme_are_taken(tmp_path, text, leaf):
    r = check(tmp_path, text, leaf)
    assert r.returncode == 0, r.stderr


@pytest.mark.parametrize("name", ["config.yaml", *MANIFESTS])
def test_configurations_of_the_examples_are_taken(tmp_path, name, leaf):
    r = check(tmp_path, example(name) if name == "config.yaml" else config_of(name), leaf)
    assert r.returncode == 0, r.stderr
    assert not re.search("^note: ", r.stderr, re.M)


def test_the_readme_s_mirrors_of_buildkit_and_containerd_are_plain_where_larder_is():
    """BuildKit takes a mirror for TLS unless the mirror itself has an entry that says otherwise."""
    text = "\n".join(blocks("toml"))
    for mirror in re.findall(r'mirrors = \["([^"]+)"\]', text):
        assert re.search(r'^\[registry\."%s"\]\n  http = true$' % re.escape(mirror), text, re.M)
    assert '[host."http://HOST:5000"]' in text


def keys_of_schema():
    return {line.split()[0].replace("[]", "") for line in run("check", "--schema").stdout.splitlines() if line.strip()}


def test_keys_that_are_named_exist():
    """section.key in `code`."""
    keys = keys_of_schema()
    sections = {key.split(".")[0] for key in keys if "." in key}
    texts = [README] + [example(name) for name in os.listdir(ROOT / "examples") if not name.endswith(".py")]
    named = {m for text in texts for m in re.findall(r"\b((?:%s)\.[a-z_]+)\b(?!\.)" % "|".join(sections), text)}
    files = {"%s.%s" % (section, end) for section in sections for end in ("example", "yaml")}
    assert "client.drain_timeout" in named and named - keys - files == set()


def test_metrics_that_are_named_exist(upstream, start_larder, tmp_path):
    (tmp_path / "password").write_text(secrets.secret("examples"))
    upstream.add("app", Image("examples"), tag="v1")
    larder = start_larder(upstream, credential_sets=[{"name": "c", "login_server": "up.test", "username": "u", "password": "file:%s/password" % tmp_path}],
                          rules=[{"name": "rule-t", "source": "up.test/*", "target": "t/*", "credential_set": "c"}])
    assert larder.get("/v2/t/app/manifests/v1").status == 200
    there = set(re.findall(r"^# HELP (larder_\w+) ", larder.admin("/metrics")[1], re.M))
    for text in (README, example("alerts.yaml"), *map(example, MANIFESTS)):
        named = set(re.findall(r"\blarder_[a-z_]+\b", text))
        assert named - there == set()
        assert named or text != example("alerts.yaml")


def test_alerts():
    (group,) = yaml.safe_load(example("alerts.yaml"))["groups"]
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"]) > 5
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"} and rule["annotations"]["summary"]
        assert rule["expr"].count("(") == rule["expr"].count(")")


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests(name):
    """What larder's answers to kubelet depend on: probes go where the admin address is, and a stop has its time."""
    config = yaml.safe_load(config_of(name))
    pod = of_kind(name, "DaemonSet", "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    host, _, port = config["admin"]["address"].rpartition(":")
    ports = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
    for kind, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        get = container[kind]["httpGet"]
        assert get["path"] == path and ports.get(get["port"], get["port"]) == int(port)
        assert get.get("host") == (host if pod.get("hostNetwork") else None)
        assert host == ("127.0.0.1" if pod.get("hostNetwork") else "0.0.0.0")
    assert pod["terminationGracePeriodSeconds"] > 25 + 5
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert set(mounts) == {"/etc/larder", "/var/lib/larder"} and not any("subPath" in mount for mount in mounts.values())
    names = {v["name"] for v in pod["volumes"]} | {v["metadata"]["name"] for v in of_kind(name, "DaemonSet", "StatefulSet")["spec"].get("volumeClaimTemplates", [])}
    assert {mount["name"] for mount in mounts.values()} <= names


def test_the_service_of_systemd():
    text = example("larder.service")
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.M)
    assert int(seconds) > 25 + 5
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in text and "\nStateDirectory=larder\n" in text
    (descriptors,) = re.findall(r"^LimitNOFILE=(\d+)$", text, re.M)
    assert int(descriptors) >= 10000 + 512


def test_the_image_has_the_libraries_of_the_program():
    """The packages that hold what the program is linked with, where this is the system that the image is made of."""
    if not os.path.exists("/etc/debian_version"):
        pytest.skip("not a Debian system")
    linked = subprocess.run(["ldd", os.environ["LARDER_BIN"]], stdout=subprocess.PIPE, text=True, check=True).stdout
    names = re.findall(r"^\s*(lib(?:uv|yaml|lmdb|nettle|jansson|bearssl|xxhash|crypt|ssl|z)\b[^ ]*)\.so", linked, re.M)
    text = example("Dockerfile")
    assert len(names) >= 6
    for name in names:
        assert re.search(r"\b%s" % re.escape(name.split("-")[0]), text.partition("FROM docker.io/library/debian:12-slim")[2]), name


def test_an_installation_has_manuals_and_completions(tmp_path):
    build = Path(os.environ["LARDER_BIN"]).resolve().parent
    if not (build / "cmake_install.cmake").exists():
        pytest.skip("the program is not in a folder that it was built in")
    r = subprocess.run(["cmake", "--install", str(build)], env=dict(os.environ, DESTDIR=str(tmp_path)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert r.returncode == 0, r.stdout
    found = {os.path.relpath(os.path.join(folder, name), tmp_path) for folder, _, names in os.walk(tmp_path) for name in names}
    ends = ["bin/larder", "share/man/man1/larder.1", "share/man/man5/larder-config.5", "share/bash-completion/completions/larder", "share/zsh/site-functions/_larder"]
    assert len(found) == len(ends) and all(any(name.endswith("/" + end) for name in found) for end in ends), found
    (page,) = tmp_path.rglob("larder.1")
    assert page.read_text() == run("man").stdout
