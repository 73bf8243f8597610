/* CUPTI as far as bench/cupti.c uses it. */
#include <cupti.h>
#include <string.h>

#include "tests/fake/fake.h"

enum { MOST = 4096, FAULTY = 4 };

union record {
    CUpti_Activity any;
    CUpti_ActivityKernel9 kernel;
    CUpti_ActivityExternalCorrelation tag;
};

static union record pending[MOST], late[4];
static int count, late_count;
static uint64_t sample, clock_ns = 1000;
static CUpti_BuffersCallbackRequestFunc request;
static CUpti_BuffersCallbackCompleteFunc complete;

static void launch(void);
struct fake_cupti fake = {.launch = launch};

static void add(union record record, bool is_late) {
    if (is_late)
        late[late_count++] = record;
    else if (count < MOST)
        pending[count++] = record;
}

static void add_kernel(const char *name, uint64_t start, uint64_t end, uint32_t correlation, bool is_late) {
    union record record = {.kernel = {.kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL}};
    record.kernel.start = start;
    record.kernel.end = end;
    record.kernel.correlationId = correlation;
    record.kernel.name = name;
    add(record, is_late);
}

static void launch(void) {
    enum fake_fault fault = ++fake.launches == FAULTY ? fake.fault : FAULT_NONE;
    uint32_t correlation = (uint32_t)fake.launches;
    union record tag = {.tag = {.kind = CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION}};
    tag.tag.externalKind = CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0;
    tag.tag.externalId = sample;
    tag.tag.correlationId = correlation;
    if (fault != FAULT_UNTAGGED) add(tag, fault == FAULT_LATE);
    add_kernel("gemm", clock_ns, fault == FAULT_ZERO ? 0 : clock_ns + 10000, correlation, fault == FAULT_LATE);
    if (fault != FAULT_MISSING)
        add_kernel(fault == FAULT_OTHER ? "other" : "reduce", clock_ns + 12000, clock_ns + 17000, correlation,
                   fault == FAULT_LATE);
    clock_ns += 100000;
}

/* A buffer with `records` of them, from `first` on. */
static void deliver(int first, int records) {
    uint8_t *buffer;
    size_t size, most;
    request(&buffer, &size, &most);
    memcpy(buffer, &pending[first], (size_t)records * sizeof *pending);
    complete(NULL, 0, buffer, size, (size_t)records * sizeof *pending);
}

CUptiResult CUPTIAPI cuptiActivityFlushAll(uint32_t flag) {
    (void)flag;
    int taken = count;
    fake.flushes++;
    for (int i = 0; fake.reversed && i < taken; i++) deliver(taken - 1 - i, 1);
    if (!fake.reversed && taken) deliver(0, taken);
    memcpy(pending, late, sizeof late);
    count = late_count;
    late_count = 0;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityGetNextRecord(uint8_t *buffer, size_t valid, CUpti_Activity **record) {
    uint8_t *next = *record ? (uint8_t *)*record + sizeof(union record) : buffer;
    if (next >= buffer + valid) return CUPTI_ERROR_MAX_LIMIT_REACHED;
    *record = (CUpti_Activity *)next;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityGetNumDroppedRecords(CUcontext context, uint32_t stream, size_t *dropped) {
    (void)context, (void)stream;
    *dropped = fake.drops;
    fake.drops = 0;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiSubscribe(CUpti_SubscriberHandle *subscriber, CUpti_CallbackFunc callback, void *data) {
    (void)callback, (void)data;
    if (fake.held) return CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED;
    *subscriber = NULL;
    fake.subscribed++;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiUnsubscribe(CUpti_SubscriberHandle subscriber) {
    (void)subscriber;
    fake.subscribed--;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityRegisterCallbacks(CUpti_BuffersCallbackRequestFunc requested,
                                                    CUpti_BuffersCallbackCompleteFunc completed) {
    request = requested;
    complete = completed;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityEnable(CUpti_ActivityKind kind) {
    if ((int)kind == fake.refuses) return CUPTI_ERROR_NOT_COMPATIBLE;
    fake.enabled++;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityDisable(CUpti_ActivityKind kind) {
    (void)kind;
    fake.enabled--;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityPushExternalCorrelationId(CUpti_ExternalCorrelationKind kind, uint64_t id) {
    (void)kind;
    sample = id;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiActivityPopExternalCorrelationId(CUpti_ExternalCorrelationKind kind, uint64_t *id) {
    (void)kind;
    *id = sample;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiGetVersion(uint32_t *number) {
    *number = 130001;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiGetResultString(CUptiResult result, const char **text) {
    *text = result == CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED ? "another tool is attached" : "not compatible";
    return CUPTI_SUCCESS;
}
