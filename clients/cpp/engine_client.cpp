// A whole C++ client of vllm.grpc.engine.VllmEngine, which Bantam serves in protobuf: asks what answers,
// streams an answer's token ids, and says how it ended. README.md beside it builds it alone.
//
//   engine_client [--target HOST:PORT] [--ca FILE] [--server-name NAME] [--timeout SECONDS] [--max-tokens N]
//                 (--ids 1,2,3 | TEXT)
//
// A key goes into the environment variable BANTAM_API_KEY. The service sends token ids and no text: a client
// has the model's tokenizer, or gets its files by GetTokenizer.

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>

#include <grpcpp/grpcpp.h>

#include "vllm_engine.grpc.pb.h"

namespace engine = vllm::grpc::engine;

namespace
{

struct Arguments {
    std::string target = "127.0.0.1:50051", ca_file, server_name, ids, text;
    double timeout_s = 30;
    uint32_t max_tokens = 32;
};

bool parse(int argc, char **argv, Arguments *out)
{
    for (int i = 1; i < argc; i++) {
        std::string name = argv[i];
        if (name.rfind("--", 0) != 0) {
            out->text = name;
            continue;
        }
        if (++i >= argc)
            return false;
        std::string value = argv[i];
        if (name == "--target")
            out->target = value;
        else if (name == "--ca")
            out->ca_file = value;
        else if (name == "--server-name")
            out->server_name = value;
        else if (name == "--ids")
            out->ids = value;
        else if (name == "--timeout")
            out->timeout_s = std::strtod(value.c_str(), nullptr);
        else if (name == "--max-tokens")
            out->max_tokens = static_cast<uint32_t>(std::strtoul(value.c_str(), nullptr, 10));
        else
            return false;
    }
    return out->ids.empty() != out->text.empty();
}

std::shared_ptr<grpc::Channel> connect(const Arguments &arguments)
{
    grpc::ChannelArguments options;
    if (arguments.ca_file.empty())
        return grpc::CreateCustomChannel(arguments.target, grpc::InsecureChannelCredentials(), options);
    std::stringstream pem;
    pem << std::ifstream(arguments.ca_file).rdbuf();
    if (!arguments.server_name.empty())
        options.SetSslTargetNameOverride(arguments.server_name);
    return grpc::CreateCustomChannel(arguments.target, grpc::SslCredentials({pem.str(), "", ""}), options);
}

// Every call has a deadline, and the key when there is one.
void prepare(const Arguments &arguments, grpc::ClientContext *context)
{
    auto timeout = std::chrono::microseconds(static_cast<int64_t>(arguments.timeout_s * 1e6));
    context->set_deadline(std::chrono::system_clock::now() + timeout);
    const char *key = std::getenv("BANTAM_API_KEY");
    if (key && key[0])
        context->AddMetadata("authorization", std::string("Bearer ") + key);
}

engine::GenerateRequest make_request(const Arguments &arguments)
{
    engine::GenerateRequest request;
    request.set_stream(true);
    // temperature and max_tokens tell 0 from unset; what else is 0 is unset.
    request.mutable_sampling_params()->set_temperature(0);
    request.mutable_sampling_params()->set_max_tokens(arguments.max_tokens);
    if (arguments.ids.empty()) {
        request.set_text(arguments.text);
        return request;
    }
    std::stringstream ids(arguments.ids);
    for (std::string id; std::getline(ids, id, ',');)
        request.mutable_tokenized()->add_input_ids(
            static_cast<uint32_t>(std::strtoul(id.c_str(), nullptr, 10)));
    return request;
}

grpc::Status show_model(engine::VllmEngine::Stub *stub, const Arguments &arguments)
{
    grpc::ClientContext context;
    engine::GetModelInfoResponse info;
    prepare(arguments, &context);
    grpc::Status status = stub->GetModelInfo(&context, engine::GetModelInfoRequest(), &info);
    if (status.ok())
        std::cout << "model: " << info.served_model_name() << ", up to " << info.max_context_length()
                  << " tokens\n";
    return status;
}

grpc::Status stream_answer(engine::VllmEngine::Stub *stub, const Arguments &arguments)
{
    grpc::ClientContext context;
    prepare(arguments, &context);
    auto reader = stub->Generate(&context, make_request(arguments));
    engine::GenerateResponse response;
    std::cout << "tokens:";
    while (reader->Read(&response)) { // context.TryCancel() would end the request on the server as well
        for (uint32_t id : response.chunk().token_ids())
            std::cout << " " << id << std::flush;
        if (response.has_complete())
            std::cout << "\nfinished: " << response.complete().finish_reason() << ", "
                      << response.complete().prompt_tokens() << " + "
                      << response.complete().completion_tokens() << " tokens\n";
    }
    return reader->Finish(); // errors come as a status alone: RESOURCE_EXHAUSTED may be tried again
}

} // namespace

int main(int argc, char **argv)
{
    Arguments arguments;
    if (!parse(argc, argv, &arguments)) {
        std::cerr << "usage: engine_client [--target HOST:PORT] [--ca FILE] [--server-name NAME] [--timeout "
                     "SECONDS]\n"
                     "    [--max-tokens N] (--ids 1,2,3 | TEXT)\n";
        return 2;
    }
    auto stub = engine::VllmEngine::NewStub(connect(arguments));
    grpc::Status status = show_model(stub.get(), arguments);
    if (status.ok())
        status = stream_answer(stub.get(), arguments);
    if (!status.ok()) {
        std::cerr << "engine_client: status " << status.error_code() << ": " << status.error_message()
                  << "\n";
        return 1;
    }
    return 0;
}
