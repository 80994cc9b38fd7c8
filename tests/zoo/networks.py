# SPDX-License-Identifier: BSD-3-Clause
"""One network of each family of pytorchcv's classifiers: what `prepare` and `convert` are tried on."""

#: Trained on 32 x 32 images, or small enough for every run of the tests.
SMALL = (
    "resnet20_cifar10", "preresnet20_cifar10", "seresnet20_cifar10", "sepreresnet20_cifar10", "resnext20_16x4d_cifar10",
    "densenet40_k12_cifar10", "xdensenet40_2_k24_bc_cifar10", "nin_cifar10", "pyramidnet110_a48_cifar10",
    "diaresnet20_cifar10", "rir_cifar10", "ror3_56_cifar10", "squeezenet_v1_1", "shufflenet_g3_wd4",
    "shufflenetv2_wd2", "shufflenetv2b_wd2", "mobilenet_wd4", "mobilenetv2_wd4", "mobilenetv3_small_w7d20", "ghostnet",
    "igcv3_wd4", "sqnxt23_w1", "menet108_8x1_g3", "mixnet_s", "condensenet74_c4_g4", "hardnet39ds",
)  # fmt: skip

#: The others, up to some minutes.
LARGE = (
    "alexnet", "vgg11", "bninception", "resnet18", "preresnet18", "resnext14_32x4d", "seresnet18", "senet16",
    "ibn_resnet50", "airnet50_1x64d_r2", "bam_resnet18", "cbam_resnet18", "resattnet56", "sknet50", "scnet50",
    "pyramidnet101_a360", "diracnet18v2", "sharesnet18", "densenet121", "sparsenet121", "peleenet",
    "drnc26", "dpn68", "darknet_tiny", "darknet53", "channelnet", "bagnet9", "dla34", "fishnet99", "espnetv2_wd2",
    "dicenet_wd5", "hrnet_w18_small_v1", "vovnet27s", "selecsls42", "xdensenet121_2", "fdmobilenet_w1", "mnasnet_b1",
    "proxylessnas_cpu", "fbnet_cb", "xception", "inceptionv3", "inceptionv4", "inceptionresnetv2", "polynet",
    "nasnet_4a1056", "darts", "spnasnet", "efficientnet_b0", "octresnet10_ad2", "resnetd50b", "revnet38",
)  # fmt: skip
