# Speed-up of every int4 kernel over the best fp16 kernel of the same shape, a panel a layer.
axis = "speed-up over fp16"
logarithmic = 0
set arrow 1 from graph 0, first 1 to graph 1, first 1 nohead linecolor rgb "#808080" linewidth 1
load "panels.gp"
