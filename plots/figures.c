#include "plots/figures.h"

const struct figure figures[] = {
    {"speedup", "int4 over the best fp16 kernel against M, a panel a layer", false, figure_speedup},
    {"tflops", "TFLOP/s against M with the measured matrix ceiling", false, figure_tflops},
    {"roofline", "TFLOP/s against flops a byte with both measured ceilings", false, figure_roofline},
    {"heatmap", "best time by two tile parameters of one kernel", true, figure_heatmap},
    {"convergence", "best time so far against the number of trials", true, figure_convergence},
};
const int figure_count = sizeof figures / sizeof *figures;
