# A bar a token, its ops one on the other and the gaps between kernels on top. Row 0 names the columns: the token, all
# of its microseconds, then the ops.
array shade[17] = ["#909090", "#C8DDEB", "#0072B2", "#D55E00", "#009E73", "#A9C8DC", "#56B4E9", "#E69F00", "#7FA7BF", \
                   "#CC79A7", "#8B8000", "#5E3C99", "#B2ABD2", "#FDB863", "#80CDC1", "#DFC27D", "#404040"]
stats file(1) skip 1 using 2 nooutput
last_column = STATS_columns
bars = STATS_records
highest = STATS_max
set style data histograms
set style histogram rowstacked
set style fill solid 1.0 border rgb "white"
set boxwidth 0.6
set rmargin at screen 1 - 200.0 / width
set key at screen 1 - 20.0 / width, 1 - 100.0 / height right top vertical Left reverse invert samplen 1
set xrange [-0.6:bars - 0.4]
set yrange [0:highest * 1.08]
set ylabel "microseconds"
set grid noxtics
set xtics nomirror
set lmargin at screen 130.0 / width
# "awq, batch 1 at 512": the method above, the rest below.
two_lines(text) = sprintf("%s\n%s", word(text, 1), substr(text, strlen(word(text, 1)) + 2, strlen(text)))
plot for [i = 3:last_column] file(1) using i:xtic(two_lines(strcol(1))) linecolor rgb shade[i == last_column ? 17 : i - 2] title columnheader(i), \
    file(1) using 0:2:(sprintf("%.0f", column(2))) skip 1 with labels offset 0, 0.7 notitle
