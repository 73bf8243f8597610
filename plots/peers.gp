# Speed-up of int4 over cuBLASLt's fp16 against M, a panel a layer: ours thick, peers of another run thin and broken.
axis = "speed-up over fp16"
logarithmic = 0
do for [i = 3:14] {
    set style line i linecolor rgb colour[(i - 1) % 7 + 1] linewidth 1.5 dashtype 2 + (i > 7) \
        pointtype shape[(i - 1) % 7 + 1] pointsize 0.6
}
set style line 1 linewidth 3
set style line 2 linewidth 3
set arrow 1 from graph 0, first 1 to graph 1, first 1 nohead linecolor rgb "#808080" linewidth 1
load "panels.gp"
