# The card over a sweep: clock, power and temperature against time, and when the clock was held back.
stats file(1) using 1 nooutput
unit = STATS_max > 180 ? 60.0 : 1.0
last_x = STATS_max > 0 ? STATS_max / unit : 1
stats file(1) using 2 nooutput
low_clock = STATS_min; high_clock = STATS_max
stats file(1) using 4 nooutput
high_power = STATS_max
stats file(1) using 5 nooutput
low_celsius = STATS_min; high_celsius = STATS_max
held(why) = column(6) == why ? column(2) : NaN

panel_height = (height - 90.0 - 80) / 3
top_of(panel) = 1 - (90 + panel * panel_height) / height
bottom_of(panel) = 1 - (90 + (panel + 1) * panel_height - 30) / height
set multiplot
set lmargin at screen 130.0 / width
set rmargin at screen 1 - 40.0 / width
set xrange [0:last_x]
set format x ""

set tmargin at screen top_of(0)
set bmargin at screen bottom_of(0)
set ylabel "SM clock (MHz)"
set yrange [low_clock - 0.1 * (high_clock - low_clock) - 20:high_clock + 0.1 * (high_clock - low_clock) + 20]
set key at screen 0.97, 30.0 / height right horizontal Left reverse samplen 1
plot file(1) using ($1 / unit):2 with lines linestyle 1 notitle, \
    file(1) using ($1 / unit):(held(1)) with points pointtype 7 pointsize 0.6 linecolor rgb colour[6] title "at the power cap", \
    file(1) using ($1 / unit):(held(2)) with points pointtype 7 pointsize 0.8 linecolor rgb "#C00000" title "throttled"
unset label 1
unset label 2
unset key

set tmargin at screen top_of(1)
set bmargin at screen bottom_of(1)
set ylabel "power (W)"
set yrange [0:high_power * 1.1 + 1]
plot file(1) using ($1 / unit):4 with lines linestyle 2

set tmargin at screen top_of(2)
set bmargin at screen bottom_of(2)
set format x "%g"
set xlabel (unit > 1 ? "minutes" : "seconds")
set ylabel "temperature (°C)"
set yrange [low_celsius - 3:high_celsius + 3]
plot file(1) using ($1 / unit):5 with lines linestyle 3
unset multiplot
