# Rate of every matrix product against M, a panel a layer, under the measured matrix ceiling.
axis = "TFLOP/s"
logarithmic = 1
load "panels.gp"
