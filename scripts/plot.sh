#!/usr/bin/env bash
# Draws the figures of the bench as bars, for README.md and docs/benchmarks.md:
#
#     scripts/plot.sh [--policies | --api] FILE OUT.svg       FILE: what `scripts/bench.sh --tsv FILE` writes
#
#   without      ADD and DEL, one after another and 80 at once, above for plain pods and below with masquerade and a
#                hostPort. The axis is logarithmic, because the slowest contender takes three thousand times as long as
#                the fastest
#   --policies   new connections a second by the number of NetworkPolicies, and below how long a change takes until the
#                kernel has it
#   --api        what an agent costs itself and the API server, when it starts and from then on; of `--api --tsv FILE`
#
# FILE has three columns, separated by tabs: case, contender, median_ms; of the API server four: case, variant, unit,
# value. The first line names them. Uses gnuplot.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh

subject=plugins heading='case\tcontender\tmedian_ms'
case ${1:-} in
    --policies) subject=policies && shift ;;
    --api) subject=api heading='case\tvariant\tunit\tvalue' && shift ;;
esac
[ $# -eq 2 ] || die "usage: scripts/plot.sh [--policies | --api] FILE OUT.svg"
[ -r "$1" ] || die "cannot read $1"
command -v gnuplot >/dev/null || need_packages gnuplot-nox

work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT

# matrix CHOOSE FILE: one line a group of bars, one column a colour, in the order of FILE; "-" where one was not
# measured. CHOOSE is awk: it sets row, column and value of a line, or passes over the line by `next`.
matrix() {
    awk -F '\t' -v heading="$heading" '
        NR == 1 { if ($0 != heading) { print "not a file of the bench: " $0 >"/dev/stderr"; exit 1 }; next }
        '"$1"'
        !(row in seen) { seen[row]; rows[++n] = row }
        !(column in known) { known[column]; columns[++m] = column }
        { values[row, column] = value }
        END {
            if (!n) { print "the file has nothing of this subject" >"/dev/stderr"; exit 1 }
            printf "case"; for (j = 1; j <= m; j++) printf "\t%s", columns[j]; print ""
            for (i = 1; i <= n; i++) {
                printf "%s", rows[i]
                for (j = 1; j <= m; j++)
                    printf "\t%s", (rows[i], columns[j]) in values ? values[rows[i], columns[j]] : "-"
                print ""
            }
        }' "$2"
}

# panel MATRIX TITLE SETTINGS: one of the two plots, as gnuplot reads it. SETTINGS define label(v), what stands above a
# bar, and colour(i) of column i.
panel() {
    cat <<END
set title "$2"
$3
file = "$1"
columns = int(system("head -n 1 ".file." | awk -F '\\t' '{ print NF }'"))
# A group takes one unit; its bars and one gap share it.
x(i, row) = row - 0.5 + (i - 2 + 1) / (columns - 1 + 1.0)
plot for [i = 2:columns] file using i:xtic(1) title columnheader(i) linetype colour(i), \\
     for [i = 2:columns] file using (x(i, \$0)):i:(label(column(i))) every ::1 with labels offset 0,0.6 font ",10" notitle
END
}

# shellcheck disable=SC2016 # awk expands them
plugins() {
    local job chosen='
        { row = rest = $1; sub(/[, ].*/, "", row); if (row == "80") row = substr($1, 1, 7) }
        { sub("^" row, "", rest); served = rest ~ /^ with masquerade and a hostPort, (one|16)/ }
        row !~ /^(80 )?(ADD|DEL)s?$/ || (job == "served") != served { next }
        !served && rest !~ /^, (one|16)/ { next }
        # With IPv6 it waits for duplicate address detection; docs/benchmarks.md says so.
        $2 ~ /dual stack/ { next }
        { column = $2; value = $3 }'
    for job in plain served; do matrix "BEGIN { job = \"$job\" } $chosen" "$1" >"$work/$job"; done
    local axis='
set logscale y
set yrange [0.8:25000]
set ytics ("1 ms" 1, "10 ms" 10, "100 ms" 100, "1 s" 1000, "10 s" 10000) nomirror
set linetype 1 linecolor rgb "#c2410c"
set linetype 2 linecolor rgb "#94a3b8"
set linetype 3 linecolor rgb "#fb923c"
set linetype 4 linecolor rgb "#2563eb"
set linetype 5 linecolor rgb "#7c3aed"
label(v) = v < 10 ? sprintf("%.1f", v) : v < 1000 ? sprintf("%.0f", v) : sprintf("%.1f s", v / 1000)'
    title="How long ADD and DEL take, by contender"
    panel "$work/plain" "A pod's links, addresses and routes" "$axis
colour(i) = i - 1"
    # The last one is the bridge in both.
    panel "$work/served" "The same with masquerade and one hostPort" "$axis
colour(i) = i == 5 ? 5 : i - 1"
}

# shellcheck disable=SC2016
policies() {
    matrix '
        $1 !~ /^new connection/ || $1 ~ /CPU time/ || $3 <= 0 { next }
        { row = $1; sub(/^new connection[^,]*, /, "", row); if ($1 ~ /with a request/) row = row ", with a request" }
        { column = $2; value = 1000 / $3 }' "$1" >"$work/connections"
    # Planning is a part of the whole; what is gathered was measured at one number of policies only.
    matrix '
        !sub(/^event to table, /, "", $1) || $2 ~ /planning|gathered/ { next }
        { row = $2 ~ /peer/ ? "a pod as a peer" : $2 ~ /not selected/ ? "a pod that none selects" : $2 }
        { sub(/ comes or goes$/, "", row); sub(/^a policy$/, "a policy of these pods", row) }
        { column = $1; value = $3 }' "$1" >"$work/changes"
    local colours='
set linetype 1 linecolor rgb "#94a3b8"
set linetype 2 linecolor rgb "#fb923c"
set linetype 3 linecolor rgb "#c2410c"
set linetype 4 linecolor rgb "#7c3aed"
set xrange [-0.6:*]'
    title="What NetworkPolicies cost: new connections, and changes"
    panel "$work/connections" "New connections a second, one client, one after another" "$colours
set yrange [0:*]
set offsets 0, -0.4, graph 0.15, 0
set ytics format '%.0f' nomirror
label(v) = sprintf('%d,%03d', int(v / 1000), int(v) % 1000)
colour(i) = i - 1"
    # There is no bar for \"no policies\" here.
    panel "$work/changes" "From the API's event to the table in the kernel" '
set offsets 0, -0.4, 0, 0
set logscale y
set yrange [0.001:1000]
set ytics ("1 µs" 0.001, "10 µs" 0.01, "100 µs" 0.1, "1 ms" 1, "10 ms" 10, "100 ms" 100) nomirror
label(v) = v < 0.9995 ? sprintf("%.0f µs", v * 1000) : v < 10 ? sprintf("%.1f ms", v) : sprintf("%.0f ms", v)
colour(i) = i'
}

# Each group has a unit of its own: the first variant is 100 %, and below the group stands what that is.
# shellcheck disable=SC2016
api() {
    local axis='
set yrange [0:*]
set ytics format "%.0f %%" nomirror
set xrange [-0.6:*]
set offsets 0, -0.4, graph 0.15, 0
set linetype 1 linecolor rgb "#94a3b8"
set linetype 2 linecolor rgb "#c2410c"
set linetype 3 linecolor rgb "#2563eb"
label(v) = sprintf("%.0f %%", v)
colour(i) = i - 1'
    local share='
        $4 <= 0 { next }
        !($3 in whole) { whole[$3] = $4; row = $3; gsub(/ an hour|memory /, "", row)
            of[$3] = row ": " sprintf($4 < 1 ? "%.2f" : $4 < 10 ? "%.1f" : "%.0f", $4) }
        { row = of[$3]; column = $2; value = 100 * $4 / whole[$3] }'
    matrix '$1 != "until an agent knows all Nodes" || $3 !~ /MiB|CPU/ { next }'"$share" "$1" >"$work/first"
    matrix '$1 != "an agent that runs" || $3 !~ /an hour/ { next }'"$share" "$1" >"$work/steady"
    title="What an agent costs the API server, and itself"
    panel "$work/first" "Until an agent knows all Nodes" "$axis"
    panel "$work/steady" "From then on, in an hour" "$axis"
}

{
    cat <<'END'
set terminal svg size 860,640 font "sans-serif,13" background "#abcdef"
set encoding utf8
set datafile separator "\t"
set datafile missing "-"
set style data histograms
set style histogram clustered gap 1
set style fill solid 1.0 noborder
set boxwidth 0.92
set xtics nomirror scale 0
set grid ytics linewidth 0.4
set border 1
set key outside top center horizontal reverse Left samplen 1 width 2
set multiplot layout 2,1
END
    "$subject" "$1"
    echo "unset multiplot"
} >"$work/script"
gnuplot "$work/script" >"$work/svg"

# Text and background change together, so that the picture can be read on any page.
style='svg { color: #1f2328 } .paper { fill: #ffffff } text { fill: currentColor }'
style+=' @media (prefers-color-scheme: dark) { svg { color: #e6edf3 } .paper { fill: #0d1117 } }'
sed -e "s|<title>Gnuplot</title>|<title>$title</title>|" \
    -e 's|<desc>Produced by GNUPLOT[^<]*</desc>|<desc>Medians of scripts/bench.sh, drawn by scripts/plot.sh</desc>|' \
    -e 's|fill="#abcdef"|class="paper"|' -e "s|'black'|'currentColor'|g" -e 's|"black"|"currentColor"|g' \
    -e "0,/<g id=\"gnuplot_canvas\">/s||<style>$style</style>\n&|" \
    "$work/svg" >"$2"
