# Best time for each pair of values of two tile parameters, whatever the others were.
stats file(1) every ::::0 using (x_name = strcol(1), y_name = strcol(2), 0) nooutput
stats file(1) using 1:2 skip 1 nooutput
last_x = STATS_max_x
last_y = STATS_max_y
stats file(1) using 6 skip 1 nooutput
slowest = STATS_max

# Viridis, the best bright.
set palette defined (0 "#fde725", 0.25 "#5ec962", 0.5 "#21918c", 0.75 "#3b528b", 1 "#440154")
set cblabel "time relative to the best cell" offset 1, 0
set cbrange [1:slowest > 1.02 ? slowest : 1.02]
if (slowest > 2) {
    set logscale cb
    set cbtics ("1x" 1, "1.5x" 1.5, "2x" 2, "3x" 3, "5x" 5, "10x" 10, "20x" 20, "50x" 50, "100x" 100)
} else {
    set format cb "%gx"
}
dark(ratio) = slowest > 2 ? log(ratio) > 0.45 * log(slowest) : ratio - 1 > 0.45 * (slowest - 1)

set rmargin at screen 1 - 170.0 / width
set xlabel x_name
set ylabel y_name
set xrange [-0.5:last_x + 0.5]
set yrange [-0.5:last_y + 0.5]
unset grid
set border 0
set tics scale 0
unset key
box = 0.49
empty(ratio) = ratio eq "NaN"
text(us) = sprintf(us < 1000 ? "%.3g µs" : "%.0f µs", us)
plot file(1) using 1:2:($1 - box):($1 + box):($2 - box):($2 + box):xtic(strcol(3)):ytic(strcol(4)) skip 1 \
        with boxxyerror linecolor rgb "#e8e8e8" fillstyle solid noborder, \
    "" using 1:(empty(strcol(6)) ? NaN : $2):($1 - box):($1 + box):($2 - box):($2 + box):6 skip 1 with boxxyerror \
        linecolor palette fillstyle solid noborder, \
    "" using 1:($6 == 1 ? $2 : NaN):($1 - box):($1 + box):($2 - box):($2 + box) skip 1 with boxxyerror \
        linecolor rgb "black" linewidth 4 fillstyle empty, \
    "" using 1:(empty(strcol(6)) ? $2 : NaN):("no result") skip 1 with labels textcolor rgb "#707070", \
    "" using 1:(dark($6) ? $2 : NaN):(text($5)) skip 1 with labels textcolor rgb "white", \
    "" using 1:(dark($6) ? NaN : $2):(text($5)) skip 1 with labels textcolor rgb "black"
