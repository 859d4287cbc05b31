"""What is measured. A scenario is a function that takes a Bench, starts servers, and adds figures with their targets; its first line of
documentation is its title. The servers take turns within a round (A B C A B C ...), so that what else the machine does meets all."""
import concurrent.futures
import hashlib
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from harness import (KIB, MIB, Failed, Impossible, MemoryLimit, at_least, at_least_of, at_most, at_most_of, every_second, failures, get,
                     hammer, hammer_tls, load, load_told, program, refuse_failures, words, wrk, wrk_tls)
from peers import CACHES, NO_FETCH, STATIC, Bare, Direct, Larder, Origin, World

FILES = ("nginx", "h2o")  # what a hit can be at best


# --- hits -----------------------------------------------------------------------------------------------------------


def blob(origin, number):
    return f"/v2/x/blobs/{origin.blobs[number][0]}"


def fetch_twice(bench, world, server, path, size):
    """Fetches it until it must be there, and compares. Returns how often the upstream was asked for the last fetch."""
    for last in (False, True):
        if last:
            time.sleep(bench.scale.settle)
            world.origin.stats(reset=True)
        if "/manifests/" in path:
            if get(server.url + server.path(path))[0] != get(world.origin.url + path)[0]:
                raise Failed(f"it answers {path} with other bytes")
        else:
            refuse_failures(load(bench, "herd", "-c", 1, "--verify", "--size", size, server.url + server.path(path)), server)
    asked = world.origin.stats()["requests"]
    return sum(asked.values()) - (1 if "/manifests/" in path else 0)


def warm(bench, world, servers, path, size, figures):
    """The servers that have it now, with the bytes that they should have."""
    ready = []
    for server in servers:
        try:
            asked = fetch_twice(bench, world, server, path, size)
        except Failed as e:
            bench.refuse(figures, server.name, e)
            continue
        if asked > 0 and server.name == "larder":
            bench.refuse(figures, server.name, f"it asked the upstream for what it has, {asked} times")
            continue
        if asked > 0 and server.name != "direct":
            for f in figures:
                f.notes[server.name] = "asks the upstream every time, so it is no hit"
        ready.append(server)
    return ready


def measure_hits(bench, world, servers, name, path, size, unit, target, processor=False, connections=64, how=hammer):
    """Rounds of one closed loop, every server in turn."""
    figures = {f"{unit}_per_second": bench.figure(name, unit, target)}
    if processor:
        figures["server_cpu_seconds_per_gb"] = bench.figure(f"{name}: processor", "s/GB", at_most_of(1.0, *FILES))
        figures["machine_cpu_seconds_per_gb"] = bench.figure(f"{name}: processor, with the clients'", "s/GB")
    ready = warm(bench, world, servers, path, size, figures.values())
    for _ in range(bench.scale.rounds):
        for server in list(ready):
            try:
                result = how(bench, server, [path], connections)
            except (Failed, subprocess.SubprocessError) as e:
                bench.refuse(figures.values(), server.name, e)
                ready.remove(server)
                continue
            bench.record(f"{name}: {server.name}", result)
            for key, figure in figures.items():
                figure.add(server.name, result[key])
    return ready


def hit_target(bench, factor):
    return at_least_of(1.0, "nginx") if bench.scale.figures else at_least_of(factor, *FILES)


def how_to_load(bench):
    return wrk if bench.scale.figures else hammer


def start(bench, origin, paths, classes=CACHES + STATIC):
    """Servers for a scenario of hits; one that cannot start is a "no" in every figure, which come later."""
    world = World(bench, origin, paths)
    absent = bench.figure("", "count")
    servers = bench.servers(classes, world, [absent])
    bench.figures.remove(absent)
    return world, servers, absent.no


def finish(figures, absent):
    for figure in figures:
        for name, why in absent.items():
            figure.refuse(name, why)


def manifests(bench):
    """manifest hits, 64 connections: by tag and by digest; nginx and h2o serve the same bytes as files"""
    origin = bench.run(Origin(bench), "--images", "1")
    by_tag, by_digest = "/v2/img-0/manifests/latest", f"/v2/img-0/manifests/{origin.images['img-0:latest']}"
    first = len(bench.figures)
    world, servers, absent = start(bench, origin, [by_tag, by_digest], CACHES + STATIC + [Bare])
    for name, path in (("manifest by tag", by_tag), ("manifest by digest", by_digest)):
        measure_hits(bench, world, servers, name, path, 0, "requests", hit_target(bench, 1.2), how=how_to_load(bench))
    if program("wrk") and not bench.scale.quick and not bench.scale.figures:
        both = [s for s in servers if s.name in ("larder", "bare", *FILES)]
        measure_hits(bench, world, both, "manifest by digest, as wrk says", by_digest, 0, "requests", None, how=wrk)
    finish(bench.figures[first:], absent)


def small(bench):
    """16 KiB blob hits, 64 connections"""
    blobs(bench, [16 * KIB], "requests", 1.1, processor=False)


def large(bench):
    """large blob hits: 64 connections, 8 for those of 1 GiB; and the processor time that a gigabyte costs"""
    blobs(bench, bench.scale.large, "bytes", 1.0, processor=not bench.scale.figures)


def blobs(bench, sizes, unit, factor, processor):
    need_memory(10 * sum(sizes))
    origin = bench.run(Origin(bench), *[o for size in sizes for o in ("--blob", str(size))])
    first = len(bench.figures)
    kinds = CACHES + STATIC + ([Bare] if max(sizes) <= 64 * KIB else [])  # more than a socket takes at once is not its business
    world, servers, absent = start(bench, origin, [blob(origin, i) for i in range(len(sizes))], kinds)
    for i, size in enumerate(sizes):
        measure_hits(bench, world, servers, f"{words(size)} blob", blob(origin, i), size, unit, hit_target(bench, factor), processor,
                     connections=64 if size < 1 << 30 else 8, how=how_to_load(bench))
    finish(bench.figures[first:], absent)


def need_memory(size):
    """Every server has a copy in the page cache or in its own memory; with less they would be measured on their disks."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * KIB for line in lines if line.startswith("MemAvailable:"))
    if free < size:
        raise Impossible(f"it needs {size / MIB:.0f} MiB of memory for all copies, and {free / MIB:.0f} MiB are available")


def latency(bench):
    """latency, open loop at 70 % of the maximum of the slowest of larder, nginx and h2o; from when each request was due"""
    origin = bench.run(Origin(bench), "--images", "1", "--blob", "16KiB")
    paths = {"manifest": f"/v2/img-0/manifests/{origin.images['img-0:latest']}", "16 KiB blob": blob(origin, 0)}
    first = len(bench.figures)
    world, servers, absent = start(bench, origin, list(paths.values()))
    for name, path in paths.items():
        figures = {key: bench.figure(f"{name}: {label}", "ms", at_most_of(1.0, *FILES) if key != "p50" else None)
                   for key, label in (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"))}
        ready = warm(bench, world, servers, path, origin.blobs[0][1], figures.values())
        fastest = {s.name: hammer(bench, s, [path])["requests_per_second"] for s in ready}
        rate = 0.7 * min([v for n, v in fastest.items() if n in ("larder", *FILES)])
        bench.record(f"{name}: requests per second", {"maximum": fastest, "asked": rate})
        for server in [s for s in ready if fastest[s.name] < rate]:
            bench.refuse(figures.values(), server.name, f"it answers {fastest[server.name]:.0f}/s, and {rate:.0f}/s are asked")
            ready.remove(server)
        for _ in range(bench.scale.rounds):
            for server in ready:
                one_latency(bench, server, path, rate, figures)
    finish(bench.figures[first:], absent)


def one_latency(bench, server, path, rate, figures):
    report = load(bench, "rate", "-c", 64, "--rate", f"{rate:.0f}", "-d", f"{bench.scale.seconds}s",
                  "--warmup", f"{bench.scale.seconds / 4}s", server.url + server.path(path))
    bench.record(f"{path}: {server.name}", report)
    if failures(report):
        bench.refuse(figures.values(), server.name, f"at {rate:.0f}/s it left {failures(report)}")
        return
    for key, figure in figures.items():
        if server.name not in figure.no:
            figure.add(server.name, report["total_ms"][key])


def tls(bench):
    """hits over TLS 1.2, AES-128-GCM, 64 connections: 1 MiB, 64 MiB, a manifest; handshakes; nginx and h2o show the same certificate (ECDSA, P-256)"""
    sizes = bench.scale.large[:2]
    need_memory(10 * sum(sizes))
    origin = bench.run(Origin(bench), "--images", "1", *[o for size in sizes for o in ("--blob", str(size))])
    manifest = f"/v2/img-0/manifests/{origin.images['img-0:latest']}"
    large_ones = [blob(origin, i) for i in range(len(sizes))]
    first = len(bench.figures)
    world, servers, absent = start(bench, origin, [manifest, *large_ones], [Larder] + STATIC)
    for server in list(servers):
        try:
            for path in (manifest, *large_ones):
                refuse_failures(load(bench, "herd", "-c", 1, "--verify", *trust(bench), server.tls_url + server.path(path)), server)
        except Failed as e:
            absent[server.name] = f"by TLS: {e}"
            servers.remove(server)
    def measure(name, path, size, unit, target, how):
        measure_hits(bench, world, servers, name, path, size, unit, target, how=how)
    for path, size in zip(large_ones, sizes):
        measure(f"{words(size)} blob by TLS", path, size, "bytes", at_least_of(1.0, "nginx") if size == MIB else None, hammer_tls)
    measure("manifest by digest by TLS", manifest, 0, "requests", None, hammer_tls)
    if program("wrk") and not bench.scale.quick:
        measure("1 MiB blob by TLS, as wrk says", large_ones[0], MIB, "bytes", None, wrk_tls)
    measure("full handshakes, a manifest each", manifest, 0, "requests", None, shake_full)
    measure("resumed handshakes, a manifest each", manifest, 0, "requests", None, shake_resumed)
    finish(bench.figures[first:], absent)


def trust(bench):
    return "--ca", bench.certificate()[0]


def shake_full(bench, server, paths, connections):
    return shake(bench, server, paths, connections, "full", "--no-resume")


def shake_resumed(bench, server, paths, connections):
    return shake(bench, server, paths, connections, "resumed")


def shake(bench, server, paths, connections, kind, *options):
    """Every request on a connection of its own; only the handshakes of this kind are counted."""
    report = hammer_tls(bench, server, paths, connections, "--reconnect", "--sources", 16, *options)
    if report["handshakes"][kind] == 0:
        raise Failed(f"no handshake was {kind}: {report['handshakes']}")
    return {**report, "requests_per_second": report["handshakes"][kind] / report["seconds"]}


# --- cold -----------------------------------------------------------------------------------------------------------


def herd(bench):
    """many clients at once on a cold blob from an upstream that sends 20 MB/s

    Every round has a blob that no server has seen. nginx and h2o have it as a file: what the machine can move at all."""
    rounds, clients, size = bench.scale.rounds, bench.scale.herd, bench.scale.herd_size
    origin = bench.run(Origin(bench), "--rate", "20MB", *["--blob", str(size)] * rounds, "--blob", "1MiB")
    name = f"herd of {clients} on {words(size)}"
    figures = {
        "failed": bench.figure(f"{name}: failed clients", "count", at_most(0, "count")),
        "gets": bench.figure(f"{name}: upstream GETs", "count", at_most(1, "count")),
        "lag": bench.figure(f"{name}: last first byte after the upstream's", "ms", at_most(50, "ms")),
        "ratio": bench.figure(f"{name}: last client done, of one direct", "ratio", at_most(1.05, "ratio")),
        "time": bench.figure(f"{name}: last client done", "s"),
        "growth": bench.figure(f"{name}: growth of resident memory", "MiB", at_most(16 * MIB, "MiB") if bench.scale.figures else None),
        "cpu": bench.figure(f"{name}: processor", "s"),
    }
    cold = [figures[k] for k in figures if k not in ("failed", "time", "cpu")]
    world = World(bench, origin, [blob(origin, 0)])
    servers = bench.servers(CACHES + [Direct] + STATIC, world, list(figures.values()))
    for server in servers:
        if type(server) in STATIC:
            bench.refuse(cold, server.name, NO_FETCH)
        else:
            warm(bench, world, [server], blob(origin, rounds), 1 * MIB, ())
    for number in range(rounds):
        path = blob(origin, number)
        direct = load(bench, "herd", "-c", 1, "--size", size, origin.url + path)
        bench.record("one direct", direct)
        for server in list(servers):
            fixed = type(server) in STATIC
            result = one_herd(bench, origin, server, blob(origin, 0) if fixed else path, direct["total_ms"]["max"])
            bench.record(server.name, result)
            for key, figure in figures.items():
                if not (fixed and figure in cold):
                    figure.add(server.name, result[key])


def one_herd(bench, origin, server, path, direct_ms):
    """What one herd was like, for the figures and with all details."""
    origin.stats(reset=True)
    server.forget_peak()
    memory, cpu = server.memory(), server.cpu()
    many = load(bench, "herd", "-c", bench.scale.herd, "--size", bench.scale.herd_size, "--timeout", "300s", server.url + server.path(path))
    growth = max(0, server.memory("VmHWM") - memory)
    stats = origin.stats()
    return {"failed": sum(failures(many).values()), "gets": stats["requests"]["blob_get"],
            "lag": (many["last_first_byte_ns"] - stats["first_blob_byte_ns"]) / 1e6, "ratio": many["total_ms"]["max"] / direct_ms,
            "time": many["total_ms"]["max"] / 1e3, "growth": growth, "cpu": server.cpu() - cpu, "report": many, "upstream": stats}


def cold(bench):
    """one client pulls one image that nobody has; the upstream sends as fast as it can"""
    scale = bench.scale
    origin = bench.run(Origin(bench), "--images", scale.rounds + 1, "--layers", 4, "--layer-size", scale.cold_layer)
    name = f"cold pull of 4 layers of {words(scale.cold_layer)}"
    figures = [bench.figure(f"{name}: of direct", "ratio", at_most(1.15, "ratio")), bench.figure(f"{name}: time", "ms")]
    servers = bench.servers([Direct] + CACHES, World(bench, origin), figures)
    refuse_static(bench, figures)
    for number in range(scale.rounds + 1):  # the first image is for what a server does only once
        direct = None
        for server in list(servers):
            report = load(bench, "pull", "-c", 1, server.url, server.image(f"img-{number}:latest"))
            bench.record(server.name, report)
            if failures(report):
                bench.refuse(figures, server.name, f"the pull failed: {failures(report)}")
                servers.remove(server)
                continue
            took = report["total_ms"]["max"]
            direct = took if server.name == "direct" else direct
            if number == 0:
                continue
            figures[1].add(server.name, took)
            if direct:
                figures[0].add(server.name, took / direct)


def refuse_static(bench, figures):
    for kind in STATIC:
        if kind.name in bench.chosen:
            for figure in figures:
                figure.refuse(kind.name, NO_FETCH)


def mix(bench):
    """20 images that nobody has, 50 clients by Zipf's law; the upstream sends 50 MB/s for each connection, after 5 ms

    Every round begins with empty caches."""
    scale = bench.scale
    origin = bench.run(Origin(bench), "--images", scale.images, "--layers", 5, "--shared", 1, "--layer-size", scale.mix_layer,
                       "--rate", "50MB", "--delay", "5ms", "--index")
    name = f"cold mix, {scale.images} images, {scale.pullers} clients"
    figures = {"bytes": bench.figure(f"{name}: bytes from upstream, of the unique", "ratio of bytes", at_most(1.0, "ratio of bytes")),
               "time": bench.figure(f"{name}: time", "s", at_most_of(1.0, *(k.name for k in CACHES[1:]), words="any other cache")),
               "failed": bench.figure(f"{name}: failed pulls", "count", at_most(0, "count"))}
    refuse_static(bench, figures.values())
    for number in range(scale.rounds):
        for server in [k(bench) for k in [Direct] + CACHES if k.name == "larder" or k.name in bench.chosen]:
            if server.name in figures["time"].no:
                continue
            try:
                server.start(World(bench, origin))
                result = one_mix(bench, origin, server, number)
            except (Failed, OSError) as e:
                bench.refuse(figures.values(), server.name, e)
                continue
            finally:
                server.stop()
            for key, figure in figures.items():
                figure.add(server.name, result[key])


def one_mix(bench, origin, server, number):
    origin.stats(reset=True)
    report = load(bench, "pull", "-c", bench.scale.pullers, "--pulls", 2, "--zipf", 1, "--seed", number + 1, "--verify", "-t", 2, server.url,
                  *(server.image(f"img-{i}:latest") for i in range(bench.scale.images)))
    time.sleep(bench.scale.settle)  # what is still on its way for nobody
    stats = origin.stats()
    bench.record(server.name, {"report": report, "upstream": stats})
    return {"bytes": sum(stats["bytes"].values()) / max(1, stats["bytes_of_objects_got"]), "time": report["seconds"],
            "failed": sum(failures(report).values())}


# --- what is kept ---------------------------------------------------------------------------------------------------


def memory(bench):
    """small hits while large ones come from the disk: the server may use only so much memory, page cache included

    p99 of 16 KiB blobs at a fixed rate, alone and beside readers of more content than the memory holds."""
    scale = bench.scale
    count = 4 * scale.memory // scale.memory_blob
    figures = {key: bench.figure(f"16 KiB hits, {words(scale.memory)} of memory: p99 {label}", unit, target) for key, label, unit, target in (
        ("alone", "alone", "ms", None), ("loaded", "beside disk load", "ms", None),
        ("ratio", "beside disk load, of alone", "ratio", at_most(3, "ratio")))}
    limit = MemoryLimit(scale.memory)
    bench.stack.callback(limit.close)
    origin = bench.run(Origin(bench), "--blob", "16KiB", *["--blob", str(scale.memory_blob)] * count)
    world = World(bench, origin, [blob(origin, i) for i in range(count + 1)])
    for kind in CACHES + STATIC:
        for server in bench.servers([kind], world, list(figures.values())):
            try:
                for key, value in one_memory(bench, world, server, limit).items():
                    figures[key].add(server.name, value)
            except (Failed, OSError) as e:
                bench.refuse(figures.values(), server.name, e)
            server.stop()


def one_memory(bench, world, server, limit):
    origin, scale = world.origin, bench.scale
    limit.take(server)
    for i, (_, size) in enumerate(origin.blobs):
        refuse_failures(load(bench, "herd", "-c", 1, "--size", size, server.url + server.path(blob(origin, i))), server)
    measure = ("rate", "-c", 16, "--rate", 500, "-d", f"{2 * scale.seconds}s", "--warmup", "1s", server.url + server.path(blob(origin, 0)))
    alone = load(bench, *measure)
    readers = subprocess.Popen([str(a) for a in (
        bench.tools / "larder-load", "hits", "--json", "--quiet", "-c", 8, "--read-rate", "50MB", "-d", f"{2 * scale.seconds + 3}s",
        server.url + server.path(blob(origin, 1)), *(server.path(blob(origin, i)) for i in range(2, len(origin.blobs))))],
        stdout=subprocess.DEVNULL)
    time.sleep(1)
    try:
        loaded = load(bench, *measure)
    finally:
        readers.wait()
    bench.record(server.name, {"alone": alone, "loaded": loaded})
    refuse_failures(alone, server)
    refuse_failures(loaded, server)
    a, b = alone["total_ms"]["p99"], loaded["total_ms"]["p99"]
    return {"alone": a, "loaded": b, "ratio": b / max(a, 1e-6)}


def idle(bench):
    """idle kept-alive connections, plain and by TLS: resident memory of each"""
    count, limit = bench.scale.idle, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    plain = bench.figure(f"{count} idle connections: each", "KiB", at_most(KIB, "KiB"))
    by_tls = None
    if not bench.scale.figures:
        by_tls = bench.figure(f"{count} idle connections by TLS: each", "KiB", at_most(12 * KIB, "KiB"))
    if count + 500 > limit:
        raise Impossible(f"{count} connections need a limit of open files above {count + 500}, and it is {limit}: raise it with ulimit -n")
    origin = bench.run(Origin(bench), "--images", "1")
    path = "/v2/img-0/manifests/latest"
    world = World(bench, origin, [path])
    for kind in CACHES + STATIC:  # one after the other: each has the ports of the machine to itself
        for figure in [plain] + ([by_tls] if by_tls and kind in (Larder, *STATIC) else []):
            for server in bench.servers([kind], world, [figure]):  # a new one: what the row before left behind would hold this one's
                url, options = (server.url, ()) if figure is plain else (server.tls_url, ("--no-resume", *trust(bench)))
                try:
                    figure.add(server.name, idle_one(bench, server, url + server.path(path), count, *options))
                except Failed as e:
                    bench.refuse([figure], server.name, e)
                server.stop()


def idle_one(bench, server, url, count, *options):
    # What a server allocates once is not counted per connection.
    load(bench, "hits", "-c", 64, "-d", f"{bench.scale.seconds / 4}s", *options, url)
    before, anon = server.memory(), server.memory("RssAnon")
    child = subprocess.Popen([str(a) for a in (bench.tools / "larder-load", "idle", "--json", "--quiet", "-c", count, "--sources", 16, *options, url)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if child.stdout.readline().strip() != "ready":
            raise Failed("larder-load idle did not get ready")
        time.sleep(bench.scale.settle)
        after, anon_after = server.memory(), server.memory("RssAnon")
        child.communicate("")
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    bench.record(server.name, {"url": url, "before": before, "after": after, "anon_before": anon, "anon_after": anon_after})
    if child.returncode != 0:
        raise Failed(f"some of {count} connections did not stay")
    return max(0, after - before) / count


# --- larder against itself ------------------------------------------------------------------------------------------


def against_itself(bench, name, target, servers, paths, during=None):
    """Rates of two larders in turn; the figure has the ratio of the second to the first, round by round."""
    figure = bench.figure(name, "ratio", target)
    rates = bench.figure(f"{name}: rate without", "requests"), bench.figure(f"{name}: rate with", "requests")
    for _ in range(bench.scale.rounds):
        pair = []
        for i, server in enumerate(servers):
            with every_second(during if i == 1 and during else lambda: None):
                result = hammer(bench, server, paths)
            bench.record(f"{name}: {server.name}", result)
            rates[i].add("larder", result["requests_per_second"])
            pair.append(result["requests_per_second"])
        figure.add("larder", pair[1] / pair[0])


def many(bench):
    """larder with many rules and with many objects against larder with few"""
    scale = bench.scale
    origin = bench.run(Origin(bench), "--images", "1")
    world = World(bench, origin)
    manifest = f"/v2/img-0/manifests/{origin.images['img-0:latest']}"
    few, rules = bench.run(Larder(bench), world), bench.run(Larder(bench, "larder-rules", rules=scale.rules), world)
    for server in (few, rules):
        warm(bench, world, [server], manifest, 0, ())
    target = at_least(0.98)
    against_itself(bench, f"{scale.rules} rules: manifests, of few", target, (few, rules), [manifest])
    rules.stop()
    stores = [filled(bench, count) for count in (scale.some_objects, scale.objects)]
    few, objects = (bench.run(Larder(bench, n, store=s), world) for n, s in zip(("larder-few", "larder-objects"), stores))
    paths = filled_paths(scale.some_objects)
    against_itself(bench, f"{scale.objects} objects: {len(paths)} blobs of 16 KiB, of few", target, (few, objects), paths)
    asked = sum(origin.stats()["requests"].values())
    bench.record("requests that went upstream", asked)


def beginning(bench):
    """how long it takes until larder works: with many rules, after a change of its file, with many objects

    `larder check` reads, validates and compiles the whole configuration. A change is an entry more at the file's end, moved into place; it is in
    force when the server says that it has taken it, without a signal. Ready is the first connection after the start; what is resident then
    is compared with a larder whose store is empty."""
    scale = bench.scale
    check, change = (bench.figure(f"{scale.rules} rules: {label}", "ms", at_most(most, "ms"))
                     for label, most in (("larder check", 100), ("a change of the file in force", 1000)))
    ready = bench.figure(f"{scale.objects} objects: ready after the start", "ms", at_most(1000, "ms"))
    each = bench.figure(f"{scale.objects} objects: resident memory of each", "byte", at_most(200, "byte"))
    origin = bench.run(Origin(bench), "--images", "1")
    world = World(bench, origin)
    rules = bench.run(Larder(bench, "larder-rules", rules=scale.rules), world)
    store = filled(bench, scale.objects)
    for n in range(scale.rounds):
        begin = time.monotonic()
        subprocess.run([bench.larder, "check", "-f", rules.config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        check.add("larder", 1000 * (time.monotonic() - begin))
        text = rules.config.read_text()
        change.add("larder", 1000 * rules.replace(text.replace("rules:\n", f"rules:\n  - name: more{n}\n    source: origin.test/more{n}\n    target: more{n}\n")))
        full, empty = bench.run(Larder(bench, "larder-objects", store=store), world), bench.run(Larder(bench, "larder-empty"), world)
        if full.metric("store_objects") != scale.objects:
            raise Failed(f"the server has {full.metric('store_objects')} of {scale.objects} objects")
        ready.add("larder", 1000 * full.listens_after)
        each.add("larder", max(0, full.memory() - empty.memory()) / scale.objects)
        full.stop()
        empty.stop()


def filled(bench, count, *options):
    """A store with so many objects; sparse files, so it takes little but inodes, unless the options say otherwise."""
    store = Path(tempfile.mkdtemp(prefix="store-", dir=bench.tmp))
    bench.stack.callback(shutil.rmtree, store, ignore_errors=True)
    done = subprocess.run([bench.tools / "larder-fill", "--objects", str(count), "--size", str(16 * KIB), *options, "origin.test/x", store],
                          stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"a store with {count} objects could not be made: {done.stderr.strip()}")
    return store


def filled_paths(count):
    """Of the first objects of such a store."""
    return [f"/v2/x/blobs/sha256:{hashlib.sha256(b'1 %d' % i).hexdigest()}" for i in range(count)]


def evict(bench):
    """hits while others are evicted: 64 connections on a hot set at a fixed rate, open loop, without and with

    The limit of the store is lowered by a reload, so that the keeper has so many objects to evict at once; what is asked for meanwhile
    is measured from the moment before that until they are gone. Without differs in nothing else: a reload that leaves room for all, and
    as much time as the eviction of the round before took. Every round has objects of its own."""
    scale = bench.scale
    name = f"{words(16 * KIB)} hits while {scale.evicted} objects go"
    figures = {key: bench.figure(f"{name}: {label}", unit, target) for key, label, unit, target in (
        ("without", "p99 without", "ms", None), ("with", "p99 with", "ms", None),
        ("ratio", "p99 with, of without", "ratio", at_most(2, "ratio")),
        ("evicted", "evicted", "count", None), ("seconds", "time it took", "s", None))}
    origin = bench.run(Origin(bench), "--images", "1")  # has none of these objects: a hit that is none fails
    store = filled(bench, scale.some_objects + (scale.rounds + 1) * scale.evicted, "--written")
    server = bench.run(Larder(bench, store=store), World(bench, origin))
    paths = filled_paths(scale.some_objects)
    rate = EVICT_LOAD * hammer(bench, server, paths)["requests_per_second"]
    bench.record("requests per second that are asked", rate)
    seconds = scale.seconds
    for _ in range(scale.rounds):
        values = one_evict(bench, server, paths, rate, seconds)
        seconds = values["seconds"]
        for key, value in values.items():
            figures[key].add("larder", value)


EVICT_LOAD = 0.3  # of the maximum: what is measured is a delay, not a lack of processors


def one_evict(bench, server, paths, rate, seconds):
    gone, took = "store_evicted_objects_total", []
    before, used = server.metric(gone), server.metric("store_used_bytes")
    left = used - bench.scale.evicted * 16 * KIB

    def keep_within(limit, least):
        begin = time.monotonic()
        server.limit(limit)
        server.command("gc")  # returns when nothing is left to do
        time.sleep(max(0.0, begin + least - time.monotonic()))
        took.append(time.monotonic() - begin)

    def measure(during):
        report = load_told(bench, during, "-c", 64, "--rate", f"{rate:.0f}", "--warmup", f"{bench.scale.seconds / 4}s", "-d", "600s",
                           server.url + server.path(paths[0]), *map(server.path, paths[1:]))
        refuse_failures(report, server)
        return report

    without = measure(lambda: keep_within(2 * used, seconds))
    beside = measure(lambda: keep_within(left * 20 // 19, 0))  # eviction goes down to 95 % of the limit
    evicted = server.metric(gone) - before
    bench.record(server.name, {"without": without, "with": beside, "evicted": evicted, "seconds": took[1]})
    if evicted < bench.scale.evicted:
        raise Failed(f"only {evicted} of {bench.scale.evicted} objects were evicted while it was measured")
    a, b = without["total_ms"]["p99"], beside["total_ms"]["p99"]
    return {"without": a, "with": b, "ratio": b / max(a, 1e-6), "evicted": evicted, "seconds": took[1]}


def verify(bench):
    """larder verify of a server that has nothing else to do, against cat of the same files: from the disk, and from memory

    With and without --deep. A rate is the size of all files by the time that the command took."""
    sizes = [size for size, count in bench.scale.verify for _ in range(count)]
    total = sum(sizes)
    need_memory(2.5 * total)  # the upstream's copy, and the page cache
    name = f"{len(sizes)} objects, {total / MIB:.0f} MiB"
    figures = {(cold, deep): bench.figure(
        f"verify{' --deep' if deep else ''} of {name}, {'cold' if cold else 'in the page cache'}", "bytes",
        at_least_of(0.8, "cat") if cold and not deep else None) for cold in (True, False) for deep in (False, True)}
    origin = bench.run(Origin(bench), *[o for size in sizes for o in ("--blob", str(size))])
    server = bench.run(Larder(bench), World(bench, origin))
    with concurrent.futures.ThreadPoolExecutor(4) as several:
        list(several.map(lambda i: get(server.url + server.path(blob(origin, i))), range(len(sizes))))
    origin.stop()
    time.sleep(bench.scale.settle)
    folder = server.folder / "store/blobs/sha256"
    names = sorted(os.listdir(folder))
    if sum((folder / n).stat().st_size for n in names) != total:
        raise Failed(f"{folder} does not have the {len(sizes)} objects that were pulled")
    for _ in range(bench.scale.rounds):
        for cold in (True, False):
            for key, rate in one_verify(server, folder, names, total, cold).items():
                for deep in (False, True):
                    if key in ("cat", deep):
                        figures[cold, deep].add("cat" if key == "cat" else "larder", rate)


def one_verify(server, folder, names, total, cold):
    """Bytes per second of cat, and of verify without and with --deep."""
    def cat():
        read = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock
        subprocess.run(["cat", *names], cwd=folder, stdout=subprocess.DEVNULL, check=True)
        read = 512 * (resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock - read)
        if cold and read < 0.9 * total:
            raise Impossible(f"files cannot be dropped from the page cache: of {total} bytes only {read} were read from a disk")

    def check(*options):
        said = server.command("verify", *options)
        if (said["objects"], said["bytes"], said["damaged"], said["missing"]) != (len(names), total, 0, 0):
            raise Failed(f"larder verify {' '.join(options)} says {said}")

    rates = {}
    for key, run in (("cat", cat), (False, check), (True, lambda: check("--deep"))):
        if cold:
            forget_pages(folder, names)
        elif key == "cat":
            cat()  # all of it is in memory from here on
        begin = time.monotonic()
        run()
        rates[key] = total / (time.monotonic() - begin)
    return rates


def forget_pages(folder, names):
    for name in names:
        with open(folder / name, "rb") as f:
            os.fsync(f.fileno())  # what is not on the disk yet would stay
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def logging(bench):
    """the cost of an access log in a file and of metrics that are read every second"""
    origin = bench.run(Origin(bench), "--images", "1")
    world = World(bench, origin)
    manifest = f"/v2/img-0/manifests/{origin.images['img-0:latest']}"
    quiet, loud = bench.run(Larder(bench), world), bench.run(Larder(bench, "larder-log", access=True), world)
    for server in (quiet, loud):
        warm(bench, world, [server], manifest, 0, ())
    against_itself(bench, "access log and metrics: manifests, of none", at_least(0.97), (quiet, loud), [manifest], loud.scrape)


SCENARIOS = {"manifests": manifests, "small": small, "large": large, "tls": tls, "latency": latency, "herd": herd, "cold": cold, "mix": mix,
             "memory": memory, "idle": idle, "many": many, "start": beginning, "evict": evict, "verify": verify, "logging": logging}
GROUPS = {"hits": ["manifests", "small", "large"]}
