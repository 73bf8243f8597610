# A grid of panels under the titles and one legend below. Block 0 of every file is the reference line; the
# others are the series, the same ones in the same order in every panel, so that colours agree. All panels have
# the same y axis, named by `axis`; `logarithmic` says which kind.
stats file(1) using 1 nooutput
series = STATS_blocks
legend_columns = series < 4 ? 1 : 2
legend = 22.0 * ceil(series / (legend_columns + 0.0)) + 16
panel_width = (width - 60.0) / columns
panel_height = (height - 70.0 - legend - 30) / rows
x(p) = 55 + ((p - 1) % columns) * panel_width
y(p) = legend + 30 + panel_height * (rows - 1 - (p - 1) / columns)

# What `stats` sees depends on ranges and scales: gather all before setting any.
array names[panels]; array first[panels]; array last[panels]
lowest = 1e30; highest = 0
do for [p = 1:panels] {
    stats file(p) index 0 every ::::0 using (names[p] = strcol(1), 0) nooutput
    stats file(p) using 1 nooutput
    first[p] = STATS_min
    last[p] = STATS_max
    stats file(p) using 2 nooutput
    lowest = STATS_min < lowest ? STATS_min : lowest
    highest = STATS_max > highest ? STATS_max : highest
}

set logscale x 2
if (columns > 2 && last[1] > 500 * first[1]) { set xtics 1, 16 }
if (logarithmic) {
    set logscale y
    set yrange [lowest / 1.4:highest * 1.4]
    if (highest < 100 * lowest) {
        do for [decade = -6:4] { do for [step in "1 2 5"] { set ytics add (step * 10.0 ** decade) } }
    } else { set format y "%g" }
} else {
    set yrange [0:highest * 1.05]
}
unset key
set multiplot
do for [p = 1:panels] {
    set xrange [first[p] / 1.15:last[p] * 1.15]
    set title names[p] offset 0, -0.4
    set ylabel ((p - 1) % columns ? "" : axis) offset 0.5, 0
    set xlabel (p + columns > panels ? "M (tokens)" : "") offset 0, 0.3
    set lmargin at screen (x(p) + 55) / width
    set rmargin at screen (x(p) + panel_width - 25) / width
    set bmargin at screen (y(p) + 40) / height
    set tmargin at screen (y(p) + panel_height - 40) / height
    mark = first[p] < last[p] ? 0 : 1
    plot file(p) index 0 using 1:2 with linespoints linestyle 100 pointtype 2 pointsize mark, \
        for [i = 1:series - 1] file(p) index i using 1:2 with linespoints linestyle i
    unset label 1
    unset label 2
}

# The legend is a plot of its own whose points lie outside.
unset title; unset xlabel; unset ylabel; unset tics; unset border; unset grid; unset logscale; unset arrow
set xrange [0:1]
set yrange [0:1]
set lmargin at screen 0; set rmargin at screen 1; set bmargin at screen 0; set tmargin at screen legend / height
set key center center vertical Left reverse samplen 3 maxrows ceil(series / (legend_columns + 0.0))
plot file(1) index 0 using (2):(2) with lines linestyle 100 title columnheader(2), \
    for [i = 1:series - 1] file(1) index i using (2):(2) with linespoints linestyle i title columnheader(2)
unset multiplot
