# Every measured product over its arithmetic intensity, under the two measured ceilings.
set logscale xy
set format "%g"
set xlabel "arithmetic intensity (FLOP/byte, each operand moved once)"
set ylabel "TFLOP/s"
set key bottom right Left reverse samplen 1.5 box linecolor rgb "#d8d8d8" opaque spacing 1.15
stats file(1) using 2 nooutput
series = STATS_blocks
slowest = STATS_min
stats file(1) using 1 nooutput
ridge = matrix_tflops * 1e3 / read_gbs
low = (STATS_min < ridge ? STATS_min : ridge) / 2
high = (STATS_max > ridge ? STATS_max : ridge) * 2
memory(x) = read_gbs * x / 1e3
roof(x) = memory(x) < matrix_tflops ? memory(x) : matrix_tflops
set xrange [low:high]
bottom_y = (memory(low) < slowest ? memory(low) : slowest) / 1.4
top_y = matrix_tflops * 2
set yrange [bottom_y:top_y]
set samples 1000

# The bandwidth's name runs along its line: the same number of decades up as right, in pixels.
slope = (height - top - bottom) / log10(top_y / bottom_y) / ((width - left - right) / log10(high / low))
middle = low * (ridge / low) ** 0.5
set label 3 sprintf("matrix products: %.3g TFLOP/s", matrix_tflops) at low, matrix_tflops offset 1, 0.7
set arrow 1 from low, matrix_tflops to ridge, matrix_tflops nohead linecolor rgb "#a0a0a0" dashtype 3
set label 4 sprintf("read bandwidth: %.4g GB/s", read_gbs) at middle, memory(middle) center \
    rotate by atan(slope) * 180 / pi offset -0.6, 0.9
plot roof(x) with lines linestyle 100 notitle, \
    for [i = 0:series - 1] file(1) index i using 1:2 with points linestyle i + 1 title columnheader(2)
