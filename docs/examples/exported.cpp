// Tracks points with an exported model, without Python. Needs OpenVINO, which reads both formats of `export`.
//   online-tapir export small DIR
//   ffmpeg -i video.mp4 -vf scale=256:256 -f rawvideo -pix_fmt rgb24 - | ./exported DIR/ .onnx 120 80
// Frames of the model's input size come on the standard input; the point is in pixels of that size.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

int main(int argc, char** argv) {
    if (argc != 5) return std::fprintf(stderr, "usage: exported DIR/ .onnx|.xml X Y\n"), 2;
    const std::string folder = argv[1], suffix = argv[2];
    ov::Core core;
    auto open = [&](const char* stage) {
        auto exact = ov::hint::inference_precision(ov::element::f32);
        return core.compile_model(folder + stage + suffix, "CPU", exact).create_infer_request();
    };
    ov::InferRequest encoder = open("encoder"), query = open("query"), step = open("step");
    ov::Tensor image = encoder.get_input_tensor();
    const size_t area = image.get_shape()[2] * image.get_shape()[3];
    std::vector<unsigned char> rgb(3 * area);

    std::map<std::string, ov::Tensor> state;  // what a step reads, apart from the levels
    for (const auto& input : core.read_model(folder + "step" + suffix)->inputs()) {
        const std::string name = input.get_any_name();
        if (name.rfind("level", 0) == 0) continue;
        ov::Tensor tensor(ov::element::f32, input.get_shape());
        const float empty = name == "previous_xy" ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
        std::fill_n(tensor.data<float>(), tensor.get_size(), empty);
        state[name] = tensor;
    }
    for (long number = 0; std::fread(rgb.data(), 1, rgb.size(), stdin) == rgb.size(); ++number) {
        float* pixels = image.data<float>();
        for (size_t i = 0; i < area; ++i)
            for (size_t c = 0; c < 3; ++c) pixels[c * area + i] = rgb[3 * i + c] / 127.5f - 1;
        encoder.infer();
        for (size_t level = 0; level < encoder.get_compiled_model().outputs().size(); ++level) {
            const std::string name = "level" + std::to_string(level);
            query.set_tensor(name, encoder.get_output_tensor(level));
            step.set_tensor(name, encoder.get_output_tensor(level));
        }
        if (number == 0) {  // the point begins in slot 0; a slot can begin on any frame in the same way
            ov::Tensor places = query.get_tensor("xy");
            std::fill_n(places.data<float>(), places.get_size(), 0.0f);
            places.data<float>()[0] = std::strtof(argv[3], nullptr);
            places.data<float>()[1] = std::strtof(argv[4], nullptr);
            query.infer();
            const ov::Tensor match = query.get_tensor("match_queries"), refine = query.get_tensor("refine_queries");
            const ov::Tensor features = query.get_tensor("features");
            auto copy = [&](const ov::Tensor& from, const char* name) {
                if (state.count(name)) std::copy_n(from.data<const float>(), from.get_size(), state[name].data<float>());
            };
            copy(match, "match_queries"), copy(refine, "refine_queries"), copy(places, "recent.xy");
            copy(match, "recent.match"), copy(features, "recent.refine");
        }
        for (auto& [name, tensor] : state) step.set_tensor(name, tensor);
        step.infer();
        for (auto& [name, tensor] : state) {
            if (name == "match_queries" || name == "refine_queries") continue;
            const ov::Tensor next = step.get_tensor("next." + name);
            std::copy_n(next.data<const float>(), next.get_size(), tensor.data<float>());
        }
        const float* found = step.get_tensor("estimates").data<const float>();
        const float certain = 1 / ((1 + std::exp(found[2])) * (1 + std::exp(found[3])));
        std::printf("%ld %.3f %.3f %.3f\n", number, found[0], found[1], certain);
    }
}
