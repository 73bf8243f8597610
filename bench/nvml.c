#include "bench/nvml.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* NVML's own declarations, as far as they are used: its header is not on every machine with a driver. */
struct nvml_handle;
enum { NVML_SUCCESS = 0, NVML_CLOCK_SM = 1, NVML_CLOCK_MEMORY = 2, NVML_TEMPERATURE_GPU = 0 };

static struct {
    int (*init)(void);
    int (*by_uuid)(const char *uuid, struct nvml_handle **handle);
    int (*clock)(struct nvml_handle *, int type, unsigned *mhz);
    int (*temperature)(struct nvml_handle *, int sensor, unsigned *celsius);
    int (*power)(struct nvml_handle *, unsigned *milliwatts);
    int (*throttle)(struct nvml_handle *, unsigned long long *reasons);
} api;

static int resolve(void *library, const char *name, void *pointer) {
    void *symbol = dlsym(library, name);
    memcpy(pointer, &symbol, sizeof symbol);
    return symbol ? 0 : -1;
}

static int load(void) {
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!library || resolve(library, "nvmlInit_v2", &api.init) ||
        resolve(library, "nvmlDeviceGetHandleByUUID", &api.by_uuid) ||
        resolve(library, "nvmlDeviceGetClockInfo", &api.clock) ||
        resolve(library, "nvmlDeviceGetTemperature", &api.temperature) ||
        resolve(library, "nvmlDeviceGetPowerUsage", &api.power))
        return -1;
    /* Drivers before 535 know the second name only. */
    if (resolve(library, "nvmlDeviceGetCurrentClocksEventReasons", &api.throttle) &&
        resolve(library, "nvmlDeviceGetCurrentClocksThrottleReasons", &api.throttle))
        return -1;
    return api.init() == NVML_SUCCESS ? 0 : -1;
}

struct gpu_state nvml_state(const struct device *device) {
    static int loaded = 1; /* 1: not tried yet */
    struct gpu_state state = {0};
    struct nvml_handle *handle;
    unsigned value;
    if (device->backend != BACKEND_CUDA) return state;
    if (loaded == 1) loaded = load();
    if (loaded || api.by_uuid(device->uuid, &handle) != NVML_SUCCESS) return state;
    if (api.clock(handle, NVML_CLOCK_SM, &value) == NVML_SUCCESS) state.sm_mhz = (int)value;
    if (api.clock(handle, NVML_CLOCK_MEMORY, &value) == NVML_SUCCESS) state.memory_mhz = (int)value;
    if (api.temperature(handle, NVML_TEMPERATURE_GPU, &value) == NVML_SUCCESS) state.celsius = (int)value;
    if (api.power(handle, &value) == NVML_SUCCESS) state.watts = value / 1e3;
    if (api.throttle(handle, &state.throttle) != NVML_SUCCESS) state.throttle = 0;
    return state;
}

/* By bit, as nvml.h numbers them. */
static const char *const reason_names[] = {
    "idle",          "application clocks",        "software power cap",        "hardware slowdown",
    "sync boost",    "software thermal slowdown", "hardware thermal slowdown", "power brake",
    "display clocks"};

enum {
    REASON_NAMES = sizeof reason_names / sizeof *reason_names,
    HARDWARE_SLOWDOWN = 0x8,
    SOFTWARE_THERMAL = 0x20,
    HARDWARE_THERMAL = 0x40,
    POWER_BRAKE = 0x80
};

const char *nvml_reasons(unsigned long long reasons, char text[NVML_REASONS]) {
    size_t used = 0;
    unsigned long long unnamed = reasons >> REASON_NAMES << REASON_NAMES;
    snprintf(text, NVML_REASONS, "none");
    for (int i = 0; i < REASON_NAMES; i++)
        if (reasons >> i & 1)
            used += (size_t)snprintf(text + used, NVML_REASONS - used, "%s%s", used ? ", " : "", reason_names[i]);
    if (unnamed) snprintf(text + used, NVML_REASONS - used, "%s0x%llx", used ? ", " : "", unnamed);
    return text;
}

unsigned long long nvml_impairment(unsigned long long reasons) {
    return reasons & (HARDWARE_SLOWDOWN | SOFTWARE_THERMAL | HARDWARE_THERMAL | POWER_BRAKE);
}

const char *nvml_state_text(const struct gpu_state *state, char text[NVML_STATE]) {
    char reasons[NVML_REASONS];
    if (!state->sm_mhz)
        snprintf(text, NVML_STATE, "unknown");
    else
        snprintf(text, NVML_STATE, "sm %d MHz, memory %d MHz, %.0f W, %d C, throttle %s", state->sm_mhz,
                 state->memory_mhz, state->watts, state->celsius, nvml_reasons(state->throttle, reasons));
    return text;
}

bool nvml_watch(struct nvml_watch *watch, unsigned long long reasons) {
    unsigned long long impairment = nvml_impairment(reasons);
    bool first = impairment && !watch->reasons;
    watch->measured++;
    watch->impaired += impairment != 0;
    watch->reasons |= impairment;
    return first;
}
