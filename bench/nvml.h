/* The state of a GPU beside its figures. NVML is opened at run time; without it all fields are 0. */
#ifndef TILEBOOK_NVML_H
#define TILEBOOK_NVML_H

#include "kernels/device.h"

struct gpu_state {
    int sm_mhz, memory_mhz, celsius;
    double watts;
    unsigned long long throttle; /* bits of nvmlDeviceGetCurrentClocksEventReasons */
};
struct gpu_state nvml_state(const struct device *device);

#endif
