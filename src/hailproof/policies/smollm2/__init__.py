"""SmolLM2-135M-Instruct: a pretrained model that the package registry carries, and a short recipe that prepares it."""
