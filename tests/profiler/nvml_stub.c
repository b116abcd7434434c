/* A libnvidia-ml.so.1 without a GPU: plays the curve in the file that NVML_STUB names.

   One line per reading of the memory: MiB in use, "error N" for that reading, or "lost" from there
   on; the last line stays. Lines with ! come first: "!init N" lets nvmlInit fail with N,
   "!processes half" gives the caller's first child half of the memory, "!processes foreign" names
   a process that is nowhere, "!processes silent" one of unknown memory, "!processes shared" gives
   the caller's parent, besides its child, a quarter; "!utilisation none". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEPS 100000
#define MIB 1048576ULL
enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT = 7, LOST = 15 };
enum { NONE, HALF, FOREIGN, SILENT, SHARED };

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilisation_t;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gi, ci; } process_t;

static struct { int error; unsigned long long mib; } steps[STEPS];
static int count, next, init_error, processes, no_utilisation, lost;
static unsigned long long mib_now;

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    const char *path = getenv("NVML_STUB");
    FILE *script = path ? fopen(path, "r") : NULL;
    if (!script) return 9;
    char line[256], word[64];
    count = next = init_error = processes = no_utilisation = lost = 0;
    while (fgets(line, sizeof line, script) && count < STEPS) {
        int code = 0;
        unsigned long long mib;
        if (sscanf(line, "!init %d", &code) == 1) init_error = code;
        else if (sscanf(line, "!processes %63s", word) == 1)
            processes = !strcmp(word, "half") ? HALF : !strcmp(word, "foreign") ? FOREIGN
                : !strcmp(word, "shared") ? SHARED : SILENT;
        else if (!strncmp(line, "!utilisation none", 17)) no_utilisation = 1;
        else if (sscanf(line, "error %d", &code) == 1) steps[count++].error = code;
        else if (!strncmp(line, "lost", 4)) steps[count++].error = LOST;
        else if (sscanf(line, "%llu", &mib) == 1) steps[count++].mib = mib;
    }
    fclose(script);
    return init_error;
}

int nvmlShutdown(void) { return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    *device = &steps;
    return index == 0 ? OK : INVALID;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    *device = &steps;
    return strcmp(uuid, "GPU-stub") == 0 ? OK : NOT_FOUND;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    (void)device;
    if (lost) return LOST;
    int step = next < count ? next++ : count - 1;
    if (steps[step].error == LOST) lost = 1;
    if (steps[step].error) return steps[step].error;
    mib_now = steps[step].mib;
    memory->total = 8192 * MIB;
    memory->free = (8192 - mib_now) * MIB;
    memory->used = mib_now / 2 * MIB; /* without what the driver keeps: not the official figure */
    return OK;
}

int nvmlDeviceGetUtilizationRates(void *device, utilisation_t *rates) {
    (void)device;
    if (lost) return LOST;
    rates->gpu = 37;
    rates->memory = 5;
    return no_utilisation ? NOT_SUPPORTED : OK;
}

static unsigned int first_child(void) {
    char path[64];
    unsigned int child = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)getpid(), (int)getpid());
    FILE *children = fopen(path, "r");
    if (!children) return 0;
    if (fscanf(children, "%u", &child) != 1) child = 0;
    fclose(children);
    return child;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *room, process_t *found) {
    (void)device;
    if (lost) return LOST;
    unsigned int pid = processes == FOREIGN ? 4194300 : first_child();
    if (processes == NONE || pid == 0) { *room = 0; return OK; }
    unsigned int wanted = processes == SHARED ? 2 : 1;
    if (*room < wanted || !found) { *room = wanted; return INSUFFICIENT; }
    *room = wanted;
    if (wanted == 2) {
        found[1].pid = (unsigned int)getppid();
        found[1].used = mib_now / 4 * MIB;
        found[1].gi = found[1].ci = 0xFFFFFFFF;
    }
    found[0].pid = pid;
    found[0].used = processes == SILENT ? ~0ULL : mib_now / 2 * MIB;
    found[0].gi = found[0].ci = 0xFFFFFFFF;
    return OK;
}

static int said(const char *text, char *room, unsigned int length) {
    snprintf(room, length, "%s", text);
    return OK;
}

int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
    (void)device;
    return said("Stub GPU", name, length);
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
    (void)device;
    return said("GPU-stub", uuid, length);
}

int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    return said("570.0", version, length);
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = 12080;
    return OK;
}

const char *nvmlErrorString(int code) {
    (void)code;
    return "stub error";
}
