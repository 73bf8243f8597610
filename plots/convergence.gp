# Best time so far over the search's final best: thin lines are problems, thick ones their median, a colour an op.
set xlabel "trials"
set ylabel "best time so far / final best"
set logscale x 2
set logscale y
set key top right Left reverse samplen 3 spacing 1.15
array problems[panels]
most = 2; worst = 1.1
do for [p = 1:panels] {
    stats file(p) using 1 nooutput
    problems[p] = STATS_blocks - 1
    most = STATS_max > most ? STATS_max : most
    stats file(p) using 2 nooutput
    worst = STATS_max > worst ? STATS_max : worst
}
set xrange [1:most * 1.05]
set yrange [0.99:worst ** 1.25]
if (worst < 1.6) {
    set ytics (1, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5)
} else {
    set ytics (1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100)
}
plot for [p = 1:panels] for [i = 1:problems[p]] file(p) index i using 1:2 with steps linewidth 1 \
        linecolor rgb "#A0".colour[p][2:] notitle, \
    for [p = 1:panels] file(p) index 0 using 1:2 with steps linewidth 4 linecolor rgb colour[p] title columnheader(2)
