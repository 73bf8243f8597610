# Block 0 is decoding, block 1 the prompt: a row a method with its label, tok/s over the other table's, the interval's
# ends, and the two rates.
set bmargin at screen 110.0 / height
stats file(1) using 3 nooutput
least = STATS_min
stats file(1) using 4 nooutput
most = STATS_max
stats file(1) index 0 using 2 nooutput
last = STATS_records
low = least < 1 ? least : 1
reach = most - low > 0.02 ? most - low : 0.02
set xrange [-0.5:last - 0.5]
set yrange [low - 0.1 * reach:most + 0.35 * reach]
set ylabel "tok/s over the other's"
set grid noxtics
set bars 2
set key at graph 0.99, graph 0.99 right top Left reverse
set arrow 1 from graph 0, first 1 to graph 1, first 1 nohead linestyle 100
two_lines(text) = sprintf("%s\n%s", word(text, 1), substr(text, strlen(word(text, 1)) + 2, strlen(text)))
rates(one, other) = one < 1000 ? sprintf("%.1f\nfor %.1f", one, other) : sprintf("%.0f\nfor %.0f", one, other)
plot file(1) index 0 using ($0 - 0.12):2:3:4:xtic(two_lines(strcol(1))) with yerrorbars linestyle 1 title "decode", \
    "" index 0 using ($0 - 0.12):4:(rates($5, $6)) with labels offset 0, 1.4 font ",11" notitle, \
    "" index 1 using ($0 + 0.12):2:3:4 with yerrorbars linestyle 2 title "prompt", \
    "" index 1 using ($0 + 0.12):4:(rates($5, $6)) with labels offset 0, 1.4 font ",11" notitle
