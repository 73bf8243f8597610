#include <argp.h>
#include <stdio.h>

#include "kernels/device.h"
#include "bench/commands.h"

static const struct argp parser = {
    .doc = "Lists what can run kernels here: one line a device with its id (for --device), name, architecture, "
           "multiprocessors or cores, memory, and last-level cache. If there is no GPU, stderr says what is missing.",
};

static void print_device(const struct device *device) {
    printf("%-8s %s, %s, %d %s, %.1f GB memory, %.1f MB cache\n", device->id, device->name, device->architecture,
           device->multiprocessors, device->backend == BACKEND_CUDA ? "SMs" : "cores",
           (double)device->memory_bytes / 1e9, (double)device->cache_bytes / 1e6);
}

static int list_device(const char *id) {
    struct device *device;
    struct error error;
    if (device_open(id, &device, &error)) {
        fprintf(stderr, "tilebook devices: %s\n", error.text);
        return 1;
    }
    print_device(device);
    device_close(device);
    return 0;
}

int cmd_devices(int argc, char **argv) {
    struct error why = {""};
    argp_err_exit_status = 2;
    argv[0] = (char *)"tilebook devices";
    argp_parse(&parser, argc, argv, 0, NULL, NULL);
    int failed = list_device("cpu");
    int count = device_cuda_count(&why);
    for (int i = 0; i < count; i++) {
        char id[16];
        snprintf(id, sizeof id, "cuda:%d", i);
        failed |= list_device(id);
    }
    if (!count) fprintf(stderr, "tilebook devices: no GPU: %s\n", why.text);
    return failed;
}
