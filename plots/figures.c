#include "plots/figures.h"

const struct figure figures[] = {
    {"speedup", "int4 over the best fp16 kernel against M, a panel a layer", SOURCE_SWEEP, figure_speedup},
    {"tflops", "TFLOP/s against M with the measured matrix ceiling", SOURCE_SWEEP, figure_tflops},
    {"roofline", "TFLOP/s against flops a byte with both measured ceilings", SOURCE_SWEEP, figure_roofline},
    {"ecdf", "samples of every kernel over their median, the share of them below, a panel a layer", SOURCE_SAMPLES,
     figure_ecdf},
    {"card", "clocks, power and temperature of the card over the sweep", SOURCE_STATES, figure_card},
    {"heatmap", "best time by two tile parameters of one kernel", SOURCE_TRIALS, figure_heatmap},
    {"convergence", "best time so far against the number of trials", SOURCE_TRIALS, figure_convergence},
    {"peers", "int4 over cuBLASLt against M, beside the kernels of peers.csv", SOURCE_REPORT, figure_peers},
    {"floor", "time over that of only reading the weights, against M up to 64", SOURCE_REPORT, figure_floor},
    {"token", "time of a decoded token by op, a bar a token", SOURCE_PROFILE, figure_token},
    {"against", "tok/s with the tile table over those without, a point a method", SOURCE_AGAINST, figure_against},
};
const int figure_count = sizeof figures / sizeof *figures;
