#include "bench/nvml.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* NVML's own declarations, as far as they are used: its header is not on every machine with a driver. */
struct nvml_handle;
enum { NVML_SUCCESS = 0, NVML_CLOCK_SM = 1, NVML_CLOCK_MEMORY = 2, NVML_TEMPERATURE_GPU = 0 };

struct nvml_memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
static const unsigned memory_version = sizeof(struct nvml_memory_v2) | 2u << 24;

struct nvml_process_v2 {
    unsigned pid;
    unsigned long long bytes; /* all ones if the driver does not tell */
    unsigned gpu_instance, compute_instance;
};

static struct {
    int (*init)(void);
    int (*by_uuid)(const char *uuid, struct nvml_handle **handle);
    int (*clock)(struct nvml_handle *, int type, unsigned *mhz);
    int (*temperature)(struct nvml_handle *, int sensor, unsigned *celsius);
    int (*power)(struct nvml_handle *, unsigned *milliwatts);
    int (*throttle)(struct nvml_handle *, unsigned long long *reasons);
    int (*memory)(struct nvml_handle *, struct nvml_memory_v2 *);                      /* NULL before 510 */
    int (*processes)(struct nvml_handle *, unsigned *count, struct nvml_process_v2 *); /* likewise */
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
    resolve(library, "nvmlDeviceGetMemoryInfo_v2", &api.memory);
    resolve(library, "nvmlDeviceGetComputeRunningProcesses_v3", &api.processes);
    return api.init() == NVML_SUCCESS ? 0 : -1;
}

/* NULL without NVML, or if it does not know the device. */
static struct nvml_handle *find(const struct device *device) {
    static int loaded = 1; /* 1: not tried yet */
    struct nvml_handle *handle;
    if (device->backend != BACKEND_CUDA) return NULL;
    if (loaded == 1) loaded = load();
    return loaded || api.by_uuid(device->uuid, &handle) != NVML_SUCCESS ? NULL : handle;
}

struct gpu_state nvml_state(const struct device *device) {
    struct gpu_state state = {0};
    struct nvml_handle *handle = find(device);
    unsigned value;
    if (!handle) return state;
    if (api.clock(handle, NVML_CLOCK_SM, &value) == NVML_SUCCESS) state.sm_mhz = (int)value;
    if (api.clock(handle, NVML_CLOCK_MEMORY, &value) == NVML_SUCCESS) state.memory_mhz = (int)value;
    if (api.temperature(handle, NVML_TEMPERATURE_GPU, &value) == NVML_SUCCESS) state.celsius = (int)value;
    if (api.power(handle, &value) == NVML_SUCCESS) state.watts = value / 1e3;
    if (api.throttle(handle, &state.throttle) != NVML_SUCCESS) state.throttle = 0;
    return state;
}

bool nvml_use(const struct device *device, struct gpu_use *use) {
    struct nvml_memory_v2 info = {.version = memory_version};
    struct nvml_process_v2 processes[NVML_PROCESSES];
    struct nvml_handle *handle = find(device);
    unsigned count = NVML_PROCESSES;
    *use = (struct gpu_use){.used = 0};
    if (!handle || !api.memory || api.memory(handle, &info) != NVML_SUCCESS) return false;
    use->used = info.used;
    if (!api.processes || api.processes(handle, &count, processes) != NVML_SUCCESS) return true;
    for (unsigned i = 0; i < count && i < NVML_PROCESSES; i++) {
        use->processes[use->count].pid = processes[i].pid;
        use->processes[use->count++].bytes = ~processes[i].bytes ? processes[i].bytes : 0;
    }
    return true;
}

static double gib(size_t bytes) {
    return (double)bytes / (1 << 30);
}

const char *nvml_use_text(const struct device *device, const struct gpu_use *use, char text[NVML_USE]) {
    int used = snprintf(text, NVML_USE, "%.2f GiB of %s are in use%s", gib(use->used), device->id,
                        use->count ? ":" : "; NVML names no process");
    for (int i = 0; i < use->count; i++) {
        used += snprintf(text + used, NVML_USE - (size_t)used, "%s process %u", i ? "," : "", use->processes[i].pid);
        if (use->processes[i].bytes)
            used += snprintf(text + used, NVML_USE - (size_t)used, " (%.2f GiB)", gib(use->processes[i].bytes));
    }
    return text;
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
