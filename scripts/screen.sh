#!/usr/bin/env bash
# Draws what a command prints as a terminal shows it, from a transcript in a page of docs/:
#
#     scripts/screen.sh docs/cli.md "ferrulectl doctor" docs/doctor.svg
#
# tests/documents/node.rs executes such a transcript and compares it with what the page says, so the picture is of real
# output. What begins a paragraph is bold, the labels below it are pale.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh

[ $# -eq 3 ] || die "usage: scripts/screen.sh PAGE COMMAND OUT.svg"
[ -r "$1" ] || die "cannot read $1"

command=$2 awk '
    /^```/ { within = /^```console node$/; next }
    within && /^# / { wanted = ($0 == "# " ENVIRON["command"]); if (!wanted) next }
    within && wanted { lines[++n] = $0; if (length($0) > widest) widest = length($0) }
    function escaped(text) { gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text); return text }
    END {
        if (n < 2) { print "the page has no transcript of that command" >"/dev/stderr"; exit 1 }
        # A letter of a monospaced font is three fifths of its size wide.
        width = int(widest * 7.23) + 40; height = n * 18 + 44
        print "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " width " " height "\" width=\"" width "\" height=\"" height "\" role=\"img\">"
        print "<title>" escaped(ENVIRON["command"]) ", and what it prints</title>"
        print "<style>"
        print "  .paper { fill: #f6f8fa; stroke: #d0d7de }"
        print "  text { fill: #1f2328; font: 12px ui-monospace, \"DejaVu Sans Mono\", monospace; white-space: pre }"
        print "  .bold { font-weight: bold } .pale { fill: #57606a } .prompt { fill: #c2410c; font-weight: bold }"
        print "  @media (prefers-color-scheme: dark) {"
        print "    .paper { fill: #0d1117; stroke: #30363d }"
        print "    text { fill: #e6edf3 } .pale { fill: #8b949e } .prompt { fill: #fb923c }"
        print "  }"
        print "</style>"
        print "<rect class=\"paper\" x=\"0.5\" y=\"0.5\" width=\"" width - 1 "\" height=\"" height - 1 "\" rx=\"8\"/>"
        for (i = 1; i <= n; i++) {
            y = 20 + i * 18; line = lines[i]
            if (line == "") continue
            start = "<text x=\"20\" y=\"" y "\" xml:space=\"preserve\""
            if (i == 1) print start " class=\"prompt\">" escaped(line) "</text>"
            else if (line ~ /^  (cause|remedy)  /) {
                label = match(line, /^  [a-z]+ +/) ? substr(line, 1, RLENGTH) : ""
                print start "><tspan class=\"pale\">" label "</tspan>" escaped(substr(line, length(label) + 1)) "</text>"
            }
            else print start (line ~ /^ / ? "" : " class=\"bold\"") ">" escaped(line) "</text>"
        }
        print "</svg>"
    }' "$1" >"$3.new"
mv "$3.new" "$3"
