# Draws one figure. Run in this folder:
#   gnuplot -c figure.gp NAME DATA OUTPUT png|svg TITLE SUBTITLE PANELS READ_GBS MATRIX_TFLOPS
# reads DATA/NAME-1.dat ... DATA/NAME-PANELS.dat (README.md) and ends with NAME.gp, which sees these variables:
name = ARG1
file(panel) = sprintf("%s/%s-%d.dat", folder, name, panel)
folder = ARG2
title = ARG5
subtitle = ARG6
panels = ARG7 + 0
read_gbs = ARG8 + 0.0
matrix_tflops = ARG9 + 0.0

columns = panels < 2 ? 1 : panels < 5 ? 2 : 3
rows = ceil(panels / (columns + 0.0))
width = 1200
height = rows < 3 ? 800 : 200 + 300 * rows
if (ARG4 eq "svg") {
    set terminal svg size width, height background "white" font "DejaVu Sans,15" linewidth 1.2 noenhanced
} else {
    set terminal pngcairo size width, height background "white" font "DejaVu Sans,13" linewidth 1.2 noenhanced
}
set encoding utf8
set output ARG3

# Okabe and Ito: safe for colour-blind eyes.
array colour[7] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8B8000"]
array shape[7] = [7, 5, 9, 11, 13, 15, 3]
do for [i = 1:7] {
    set style line i linecolor rgb colour[i] linewidth 2 pointtype shape[i] pointsize 0.9
    set style line i + 7 linecolor rgb colour[i] linewidth 2 pointtype shape[i] pointsize 0.9 dashtype 2
    set style line i + 14 linecolor rgb colour[i] linewidth 2 pointtype shape[i] pointsize 0.9 dashtype 3
}
set style line 100 linecolor rgb "black" linewidth 1.5 dashtype 2

set border 3 linecolor rgb "#404040"
set tics nomirror out textcolor rgb "#202020"
set grid linecolor rgb "#d8d8d8" linewidth 0.8 linetype 1
set key noenhanced

# Distances from the edges are in pixels, so that they stay when a figure grows.
set label 1 title at screen 0.5, 1 - 28.0 / height center font ",17" front
set label 2 subtitle at screen 0.5, 1 - 56.0 / height center textcolor rgb "#505050" front
left = 110; right = 40; top = 90; bottom = 70
set lmargin at screen left / (width + 0.0)
set rmargin at screen 1 - right / (width + 0.0)
set tmargin at screen 1 - top / (height + 0.0)
set bmargin at screen bottom / (height + 0.0)

load name.".gp"
