// Answers the questions that torch's C++ asks a CUDA device, as if there were one. Used by pretended_gpu.py; x86-64.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <cstring>

using namespace c10;
constexpr auto CUDA = DeviceType::CUDA;

// The dispatcher and autograd ask for the current device and stream. They always get the first one.
struct PretendedGuard final : impl::NoOpDeviceGuardImpl<CUDA> {
  Device exchangeDevice(Device) const override { return Device(CUDA, 0); }
  Device getDevice() const override { return Device(CUDA, 0); }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, Device(CUDA, 0)); }
  Stream exchangeStream(Stream) const noexcept override { return Stream(Stream::DEFAULT, Device(CUDA, 0)); }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
};

static PretendedGuard guard;

static bool yes(const void*, DeviceIndex) { return true; }

// Index of a virtual function in its class's table. The pointer to a virtual function holds its byte offset plus one.
template <class Method>
static size_t slot(Method method) {
  size_t word[2];
  static_assert(sizeof method == sizeof word);
  memcpy(word, &method, sizeof word);
  return (word[0] - 1) / sizeof(void*);
}

extern "C" void install() {
  impl::device_guard_impl_registry[int(CUDA)].store(&guard);
  // The class of CUDA's hooks is hidden in libtorch_cuda. Its only object gets a copy of its table in which some
  // functions are replaced. Otherwise, without a driver, it answers that cuDNN has no bf16 convolutions, and their
  // results become NCHW.
  using Hooks = at::CUDAHooksInterface;
  constexpr size_t before = 2, functions = 128;  // offset and type come before the functions, of which there are fewer
  static void* table[before + functions];
  void*** object = (void***)&at::detail::getCUDAHooks();
  memcpy(table, *object - before, sizeof table);
  table[before + slot(&Hooks::hasPrimaryContext)] = (void*)yes;
  table[before + slot(&Hooks::supportsBFloat16ConvolutionWithCuDNNv8)] = (void*)yes;
  table[before + slot(&Hooks::supportsDilatedConvolutionWithCuDNN)] = (void*)yes;
  table[before + slot(&Hooks::supportsDepthwiseConvolutionWithCuDNN)] = (void*)yes;
  *object = table + before;
}
