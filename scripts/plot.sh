#!/usr/bin/env bash
# Draws the figures of the bench as bars, for README.md and docs/benchmarks.md:
#
#     scripts/plot.sh FILE OUT.svg       FILE: what `scripts/bench.sh --tsv FILE` writes
#
# FILE has three columns, separated by tabs: case, contender, median_ms; the first line names them. Drawn are ADD and DEL,
# one after another and 80 at once, above for plain pods and below with masquerade and a hostPort. The axis is
# logarithmic, because the slowest contender takes three thousand times as long as the fastest. Uses gnuplot.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh

[ $# -eq 2 ] || die "usage: scripts/plot.sh FILE OUT.svg"
[ -r "$1" ] || die "cannot read $1"
command -v gnuplot >/dev/null || need_packages gnuplot-nox

work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT

# matrix JOB: one line a case, one column a contender, in the order of FILE; "-" where one was not measured.
matrix() {
    awk -F '\t' -v job="$1" '
        NR == 1 { if ($0 != "case\tcontender\tmedian_ms") { print "not a file of the bench: " $0 >"/dev/stderr"; exit 1 }; next }
        { verb = $1; rest = $1; sub(/[, ].*/, "", verb); if (verb == "80") verb = substr($1, 1, 7) }
        { sub("^" verb, "", rest); served = rest ~ /^ with masquerade and a hostPort, (one|16)/ }
        verb !~ /^(80 )?(ADD|DEL)s?$/ || (job == "served") != served { next }
        !served && rest !~ /^, (one|16)/ { next }
        # With IPv6 it waits for duplicate address detection; docs/benchmarks.md says so.
        $2 ~ /dual stack/ { next }
        !(verb in seen) { seen[verb]; cases[++n] = verb }
        !($2 in known) { known[$2]; names[++m] = $2 }
        { value[verb, $2] = $3 }
        END {
            if (!n) { print "no case of ADD or DEL (" job ")" >"/dev/stderr"; exit 1 }
            printf "case"; for (j = 1; j <= m; j++) printf "\t%s", names[j]; print ""
            for (i = 1; i <= n; i++) {
                printf "%s", cases[i]
                for (j = 1; j <= m; j++) printf "\t%s", (cases[i], names[j]) in value ? value[cases[i], names[j]] : "-"
                print ""
            }
        }' "$2"
}
matrix plain "$1" >"$work/plain"
matrix served "$1" >"$work/served"

gnuplot - >"$work/svg" <<END
set terminal svg size 860,640 font "sans-serif,13" background "#abcdef"
set datafile separator "\t"
set datafile missing "-"
set style data histograms
set style histogram clustered gap 1
set style fill solid 1.0 noborder
set boxwidth 0.92
set logscale y
set yrange [0.8:25000]
set ytics ("1 ms" 1, "10 ms" 10, "100 ms" 100, "1 s" 1000, "10 s" 10000) nomirror
set xtics nomirror scale 0
set grid ytics linewidth 0.4
set border 1
set key outside top center horizontal reverse Left samplen 1 width 2
set linetype 1 linecolor rgb "#c2410c"
set linetype 2 linecolor rgb "#94a3b8"
set linetype 3 linecolor rgb "#fb923c"
set linetype 4 linecolor rgb "#2563eb"
set linetype 5 linecolor rgb "#7c3aed"
label(v) = v < 10 ? sprintf("%.1f", v) : v < 1000 ? sprintf("%.0f", v) : sprintf("%.1f s", v / 1000)
set multiplot layout 2,1
do for [job in "plain served"] {
    file = "$work/".job
    columns = int(system("head -n 1 ".file." | awk -F '\\t' '{ print NF }'"))
    set title job eq "plain" ? "A pod's links, addresses and routes" : "The same with masquerade and one hostPort"
    # A cluster takes one unit; its bars and one gap share it.
    x(i, row) = row - 0.5 + (i - 2 + 1) / (columns - 1 + 1.0)
    plot for [i = 2:columns] file using i:xtic(1) title columnheader(i) linetype (job eq "served" && i == 5 ? 5 : i - 1), \
         for [i = 2:columns] file using (x(i, \$0)):i:(label(column(i))) every ::1 with labels offset 0,0.6 font ",10" notitle
}
unset multiplot
END

# Text and background change together, so that the picture can be read on any page.
style='svg { color: #1f2328 } .paper { fill: #ffffff } text { fill: currentColor }'
style+=' @media (prefers-color-scheme: dark) { svg { color: #e6edf3 } .paper { fill: #0d1117 } }'
sed -e 's|<title>Gnuplot</title>|<title>How long ADD and DEL take, by contender</title>|' \
    -e 's|<desc>Produced by GNUPLOT[^<]*</desc>|<desc>Medians of scripts/bench.sh, drawn by scripts/plot.sh</desc>|' \
    -e 's|fill="#abcdef"|class="paper"|' -e "s|'black'|'currentColor'|g" -e 's|"black"|"currentColor"|g' \
    -e "0,/<g id=\"gnuplot_canvas\">/s||<style>$style</style>\n&|" \
    "$work/svg" >"$2"
