# How samples spread: the share of them that lies below, over their median, a panel a layer.
axis = "share of the samples"
across = "time / median"
logarithmic = 0
distribution = 1
load "panels.gp"
