# Time of the products over what only reading their weights takes, against M, a panel a layer.
axis = "time / read floor"
logarithmic = 0
set arrow 1 from graph 0, first 1 to graph 1, first 1 nohead linecolor rgb "#808080" linewidth 1
load "panels.gp"
