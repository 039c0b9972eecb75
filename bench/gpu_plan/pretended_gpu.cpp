// What torch's C++ asks of a CUDA device, answered as if one were there (pretended_gpu.py; x86-64).
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <cstring>

using namespace c10;
constexpr auto CUDA = DeviceType::CUDA;

// The dispatcher and autograd ask which device and which stream are current: always the first of each.
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

// Place of a virtual function in its class's table: a pointer to it holds that, in bytes and one more.
template <class Method>
static size_t slot(Method method) {
  size_t word[2];
  static_assert(sizeof method == sizeof word);
  memcpy(word, &method, sizeof word);
  return (word[0] - 1) / sizeof(void*);
}

extern "C" void install() {
  impl::device_guard_impl_registry[int(CUDA)].store(&guard);
  // The class of CUDA's hooks is hidden in libtorch_cuda. Its one object gets a copy of its table, some answers
  // replaced: without a driver it would say that cuDNN has no bf16 convolutions, and these would come out as NCHW.
  using Hooks = at::CUDAHooksInterface;
  constexpr size_t before = 2, functions = 128;  // offset and type precede the functions, of which there are fewer
  static void* table[before + functions];
  void*** object = (void***)&at::detail::getCUDAHooks();
  memcpy(table, *object - before, sizeof table);
  table[before + slot(&Hooks::hasPrimaryContext)] = (void*)yes;
  table[before + slot(&Hooks::supportsBFloat16ConvolutionWithCuDNNv8)] = (void*)yes;
  table[before + slot(&Hooks::supportsDilatedConvolutionWithCuDNN)] = (void*)yes;
  table[before + slot(&Hooks::supportsDepthwiseConvolutionWithCuDNN)] = (void*)yes;
  *object = table + before;
}
