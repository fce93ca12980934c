"""graphopt: a graph optimizer for ONNX models that proves and explains every rewrite."""
