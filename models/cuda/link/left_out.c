/* What is called in place of a kernel that was left out of this program; see stubs.py. */
#include <stdio.h>
#include <stdlib.h>

__attribute__((visibility("hidden"), noreturn)) void utr_cuda_left_out(void) {
    fputs("utr: a kernel of candle's that boards are built without was called; please report this\n", stderr);
    abort();
}
