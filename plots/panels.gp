# A grid of panels under the titles and one legend below. Block 0 of every file is the reference line; the
# others are the series, the same ones in the same order in every panel, so that colours agree; columns 3 and 4 are
# the band around a line. All panels have the same y axis, named by `axis`; `logarithmic` says which kind. To the right
# is M, unless `across` names something else; a `distribution` has one linear x axis for all, no marks and no bands.
if (!exists("across")) { across = "M (tokens)" }
if (!exists("distribution")) { distribution = 0 }
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
    if (!distribution) {
        stats file(p) using 3 nooutput
        lowest = STATS_min < lowest ? STATS_min : lowest
        stats file(p) using 4 nooutput
        highest = STATS_max > highest ? STATS_max : highest
    }
}

set style fill transparent solid 0.25 noborder
if (distribution) {
    least = 1e30; most = 0
    do for [p = 1:panels] {
        least = first[p] < least ? first[p] : least
        most = last[p] > most ? last[p] : most
    }
    do for [p = 1:panels] { first[p] = least; last[p] = most }
} else {
    set logscale x 2
}
if (!distribution && columns > 2 && last[1] > 500 * first[1]) { set xtics 1, 16 }
if (logarithmic) {
    set logscale y
    set yrange [lowest / 1.4:highest * 1.4]
    if (highest < 100 * lowest) {
        do for [decade = -6:4] { do for [step in "1 2 5"] { set ytics add (step * 10.0 ** decade) } }
    } else { set format y "%g" }
} else {
    set yrange [0:highest * (distribution ? 1 : 1.05)]
}
unset key
set multiplot
do for [p = 1:panels] {
    beside = distribution ? 1 + 0.02 * (most - least) : 1.15
    set xrange [first[p] / beside:last[p] * beside]
    set title names[p] offset 0, -0.4
    set ylabel ((p - 1) % columns ? "" : axis) offset 0.5, 0
    set xlabel (p + columns > panels ? across : "") offset 0, 0.3
    set lmargin at screen (x(p) + 55) / width
    set rmargin at screen (x(p) + panel_width - 25) / width
    set bmargin at screen (y(p) + 40) / height
    set tmargin at screen (y(p) + panel_height - 40) / height
    mark = first[p] < last[p] ? 0 : 1
    if (distribution) {
        plot file(p) index 0 using 1:2 with lines linestyle 100, \
            for [i = 1:series - 1] file(p) index i using 1:2 with lines linestyle i
    } else {
        plot for [i = 1:series - 1] file(p) index i using 1:3:4 with filledcurves linestyle i, \
            file(p) index 0 using 1:2 with linespoints linestyle 100 pointtype 2 pointsize mark, \
            for [i = 1:series - 1] file(p) index i using 1:2 with linespoints linestyle i
    }
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
    for [i = 1:series - 1] file(1) index i using (2):(2) with linespoints linestyle i \
        pointsize (distribution ? 0 : 0.9) title columnheader(2)
unset multiplot
