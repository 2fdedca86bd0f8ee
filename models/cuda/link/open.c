/* Finds CUDA's functions while the program runs; see stubs.py.

   A library is looked for where UTR_CUDA_LIBRARIES says (folders, ':' between), then where the loader looks, then in the usual folders of
   drivers and toolkits. Where it is missing, its functions return an error: a program that asks for a device gets "no driver", no crash. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct library {
    const char *const *names;
    void **slots;
    const char *const *files;
    void *handle;
    int status; /* what its functions return where it is missing */
    int tried;
};

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static const char usual[] = "/usr/local/cuda/lib64:/usr/local/nvidia/lib64:/usr/lib/wsl/lib:/opt/cuda/lib64";

static void *open_in(const char *folders, const char *file) {
    while (folders && *folders) {
        size_t length = strcspn(folders, ":");
        char path[4096];
        if (length > 0 && length + strlen(file) + 2 <= sizeof path) {
            snprintf(path, sizeof path, "%.*s/%s", (int)length, folders, file);
            /* Global: cuBLAS finds the cuBLASLt that lies beside it only if it is open already. */
            void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
            if (handle) return handle;
        }
        folders += length;
        if (*folders) folders++;
    }
    return NULL;
}

static void *open_file(const char *file) {
    void *handle = open_in(getenv("UTR_CUDA_LIBRARIES"), file);
    if (!handle) handle = dlopen(file, RTLD_NOW | RTLD_GLOBAL);
    return handle ? handle : open_in(usual, file);
}

static void open_library(struct library *library) {
    library->tried = 1;
    for (const char *const *file = library->files; *file && !library->handle; file++) {
        if (!strncmp(*file, "libcublas.so", 12)) {
            char sibling[64];
            snprintf(sibling, sizeof sibling, "libcublasLt%s", *file + 9);
            open_file(sibling);
        }
        library->handle = open_file(*file);
    }
}

/* What is called in place of a missing function; the status is the library's. */
static int stub_library(void) { return 34; }   /* CUDA_ERROR_STUB_LIBRARY */
static int nvrtc_internal(void) { return 11; } /* NVRTC_ERROR_INTERNAL_ERROR */
static int curand_unset(void) { return 101; }  /* CURAND_STATUS_NOT_INITIALIZED */
static int not_initialized(void) { return 1; } /* CUBLAS_STATUS_NOT_INITIALIZED */
static const char *text(void) { return "the CUDA library that holds this function was not found"; }

static void *missing(const struct library *library, const char *name) {
    /* The few functions that return a text. */
    int returns_text = strstr(name, "GetStatus") || !strcmp(name, "nvrtcGetErrorString");
    if (returns_text) return (void *)text;
    switch (library->status) {
    case 34: return (void *)stub_library;
    case 11: return (void *)nvrtc_internal;
    case 101: return (void *)curand_unset;
    default: return (void *)not_initialized;
    }
}

__attribute__((visibility("hidden"))) void *utr_cuda_find(struct library *library, unsigned index) {
    const char *name = library->names[index];
    pthread_mutex_lock(&one_at_a_time);
    if (!library->tried) open_library(library);
    pthread_mutex_unlock(&one_at_a_time);
    void *found = library->handle ? dlsym(library->handle, name) : NULL;
    if (!found) return missing(library, name);
    __atomic_store_n(&library->slots[index], found, __ATOMIC_RELEASE);
    return found;
}
