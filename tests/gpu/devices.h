/* For suites that compare a GPU with the CPU: both, open while the group runs. */
#ifndef TILEBOOK_TESTS_GPU_DEVICES_H
#define TILEBOOK_TESTS_GPU_DEVICES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernels/device.h"

static struct device *gpu, *cpu;
static struct error error;

static int open_devices(void **state) {
    (void)state;
    if (!device_open("cuda:0", &gpu, &error) && !device_open("cpu", &cpu, &error)) return 0;
    print_error("%s\n", error.text);
    return -1;
}

static int close_devices(void **state) {
    (void)state;
    device_close(gpu);
    device_close(cpu);
    return 0;
}

static void done(int status) {
    if (status) fail_msg("%s", error.text);
}

static inline void *get(struct device *device, size_t bytes) {
    void *memory = device_alloc(device, bytes, &error);
    if (!memory) fail_msg("%s", error.text);
    return memory;
}

#endif
