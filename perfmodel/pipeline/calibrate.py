from perfmodel.pipeline.machine import PipelineParameters


def load_parameters(kernel):
    return PipelineParameters()
