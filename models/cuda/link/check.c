/* Do the jumps of stubs.py arrive with their arguments? Built twice: with MOCK as a libcuda.so.1, without as a program that calls it.

   Prints what came back from a function of the mock library with more arguments than registers, from one that the library lacks, and from
   a library that is not there. */
#ifdef MOCK
int cuLaunchKernel(void *f, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned g, unsigned h, void *i, void **j, void **k) {
    return f || i || j || k ? -1 : (int)(a + 10 * b + 100 * c + 1000 * d + 10000 * e + 100000 * g + 1000000 * h);
}
#else
#include <stdio.h>
extern int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
extern int cuInit(unsigned);
extern int cublasCreate_v2(void **);

int main(void) {
    void *handle;
    for (int again = 0; again < 2; again++)
        printf("%d %d %d\n", cuLaunchKernel(0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0), cuInit(0), cublasCreate_v2(&handle));
    return 0;
}
#endif
