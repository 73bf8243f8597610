/* NVML as far as bench/nvml.c uses it. */
#include "tests/fake/fake.h"

struct fake_nvml fake;

static bool slow(void) {
    return fake.slow_from && fake.calls >= fake.slow_from;
}

int nvmlInit_v2(void) {
    return 0;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    (void)uuid;
    *handle = &fake;
    fake.calls++;
    return 0;
}

int nvmlDeviceGetClockInfo(void *handle, int type, unsigned *mhz) {
    (void)handle;
    *mhz = type == 2 ? 2619 : slow() ? 1200 : 1980;
    return 0;
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) {
    (void)handle, (void)sensor;
    *celsius = 58;
    return 0;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
    (void)handle;
    *milliwatts = 351500;
    return 0;
}

int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *reasons) {
    (void)handle;
    *reasons = slow() ? 0x8 : 0x4;
    return 0;
}

int nvmlDeviceGetMemoryInfo_v2(void *handle, struct fake_memory *memory) {
    (void)handle;
    memory->used = fake.used;
    return memory->version == (40 | 2u << 24) ? 0 : 2;
}

/* One that tells its memory and one that does not. */
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, struct fake_process *processes) {
    (void)handle;
    if (!fake.used || *count < 2) *count = 0;
    if (!*count) return 0;
    *count = 2;
    processes[0] = (struct fake_process){.pid = 4242, .bytes = 3ull << 29};
    processes[1] = (struct fake_process){.pid = 77, .bytes = ~0ull};
    return 0;
}
