/* The state of a GPU beside its figures. NVML is opened at run time; without it all fields are 0. */
#ifndef TILEBOOK_NVML_H
#define TILEBOOK_NVML_H

#include <stdbool.h>

#include "kernels/device.h"

struct gpu_state {
    int sm_mhz, memory_mhz, celsius;
    double watts;
    unsigned long long throttle; /* bits of nvmlDeviceGetCurrentClocksEventReasons */
};
struct gpu_state nvml_state(const struct device *device);

enum { NVML_REASONS = 192, NVML_STATE = 256 }; /* room for any text of these */

/* The reasons by name, "software power cap, hardware slowdown", into text, returned; "none" for 0. */
const char *nvml_reasons(unsigned long long reasons, char text[NVML_REASONS]);
/* Those of the reasons under which a figure is not that of a healthy card: heat, the power brake, the
 * slowdown of the hardware. 0 if there is none; idling and the power cap under load are ordinary. */
unsigned long long nvml_impairment(unsigned long long reasons);
/* "sm 1980 MHz, memory 2619 MHz, 350 W, 40 C, throttle none" into text, returned; "unknown" without NVML. */
const char *nvml_state_text(const struct gpu_state *state, char text[NVML_STATE]);

/* Memory of the card by all processes, without what the driver keeps for itself. */
enum { NVML_PROCESSES = 16, NVML_USE = 80 + 48 * NVML_PROCESSES };
struct gpu_use {
    size_t used;
    int count; /* processes that NVML names, which may be fewer than there are */
    struct {
        unsigned pid;
        size_t bytes; /* 0 if NVML does not tell */
    } processes[NVML_PROCESSES];
};
/* False if nothing is known. */
bool nvml_use(const struct device *device, struct gpu_use *use);
/* "21.30 GiB of cuda:0 are in use: process 4242 (20.90 GiB)" into text, returned. */
const char *nvml_use_text(const struct device *device, const struct gpu_use *use, char text[NVML_USE]);

/* Counts the measurements of a run that an impaired card made. */
struct nvml_watch {
    int measured, impaired;
    unsigned long long reasons; /* impairments, or-ed */
};
/* Adds one measurement. True at the first impairment that the watch sees. */
bool nvml_watch(struct nvml_watch *watch, unsigned long long reasons);

#endif
