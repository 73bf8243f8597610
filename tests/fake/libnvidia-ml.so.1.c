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
