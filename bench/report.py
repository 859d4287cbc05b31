"""The results on paper: a table, a JSON file with everything, and a plot for each figure that has somebody to compare with."""
import json
import re
import subprocess

from harness import LIMIT, UNITS, program

MARK = {True: "yes", False: "NO", LIMIT: LIMIT, None: ""}


def columns(figures):
    """The servers that appear, larder first."""
    order = ["larder", "bare", "cat", "direct", "nginx", "h2o", "nginx-cache", "docker-registry", "varnish", "trafficserver"]
    seen = {s for f in figures for s in (*f.rounds, *f.no)}
    return [s for s in order if s in seen]


def table(figures, sharp_only):
    """Rows of figures, columns of servers; what needs words is in numbered notes below."""
    notes = []
    def note(text):
        if text not in notes:
            notes.append(text)
        return f"[{notes.index(text) + 1}]"
    def cell(f, server):
        if server in f.no:
            return f"no {note(f.no[server])}"
        if server not in f.rounds:
            return ""
        mark = f" {note(f.notes[server])}" if server in f.notes else ""
        return UNITS[f.unit](f.values()[server]) + mark
    servers = columns(figures)
    lines = [("figure", "target", "reached", "met", *servers, "rounds")]
    for f in figures:
        text, met = f.verdict(sharp_only)
        why = f.impossible
        reached = f"{text} {note(why)}" if why else text
        apart = f"+-{f.spread() / 2:.0f} %" if any(len(r) > 1 for r in f.rounds.values()) else ""
        lines.append((f.name, f.target.text if f.target else "", reached, MARK[met], *(cell(f, s) for s in servers), apart))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, tuple("-" * w for w in widths))
    text = "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in lines) + "\n"
    if notes:
        text += "\n" + "".join(f"[{i}] {n}\n" for i, n in enumerate(notes, 1))
    return text


def plot(figure, folder):
    """Bars in an SVG file; returns its name, or None when there is nothing to compare or no gnuplot."""
    values = figure.values()
    if len(values) < 2 or max(values.values()) <= 0 or program("gnuplot") is None:
        return None
    name = re.sub(r"[^a-z0-9]+", "-", f"{figure.scenario} {figure.name}".lower()).strip("-") + ".svg"
    data = "\n".join(f'{i} {values[s]:.9g} "{s}" {0x2c6fbb if s == "larder" else 0x9aa5b1} "{UNITS[figure.unit](values[s])}"'
                     for i, s in enumerate(s for s in columns([figure]) if s in values))
    script = (f'set terminal svg size 760,320 font "sans,11" background rgb "white"\nset output "{name}"\nset title "{figure.name}"\n'
              "set style fill solid 0.9\nset boxwidth 0.6\nset yrange [0:*]\nset grid y\nset offsets 0.5,0.5,graph 0.12,0\nunset key\n"
              'set format y "%.2s %c"\n'
              f"$data << END\n{data}\nEND\n"
              "plot $data using 1:2:4:xtic(3) with boxes linecolor rgb variable, $data using 1:2:5 with labels offset 0,0.7\n")
    subprocess.run(["gnuplot"], input=script, text=True, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return name


def write(bench, machine, out, name, quick):
    """OUT/NAME.txt, OUT/NAME.json and OUT/plots/; returns the table."""
    plots = out / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    text = table(bench.figures, quick)
    (out / f"{name}.txt").write_text(text)
    figures = [f.json(quick) for f in bench.figures]
    for f, as_json in zip(bench.figures, figures):
        as_json["plot"] = plot(f, plots)
    (out / f"{name}.json").write_text(json.dumps({"machine": machine, "figures": figures, "raw": bench.raw}, indent=1) + "\n")
    return text
