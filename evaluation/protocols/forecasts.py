"""Protocols of forecast pictures."""

from __future__ import annotations

from rsw_rewards.core.records import Task
from rsw_rewards.encoders import SCENE_CLIP
from rsw_rewards.evaluation.protocols.protocol import Protocol
from rsw_rewards.verifiers.spectral import NAMES

PROTOCOLS = (
    Protocol(
        name="tfsf",
        title="Text-guided future scene forecasting",
        task=Task.FORECAST,
        source="the task of RS-WorldModel (arXiv 2603.14941); metrics as their cards define them",
        components=(
            {"use": "gain_over_copy"},
            {"use": "ssim"},
            {"use": "psnr"},
            {"use": "lpips"},
            {"use": "encoder_similarity"},
            {"use": "change_consistency"},
            {"use": "detector_consistency"},
            {"use": "clip_score"},
            {"use": "caption_contrast"},
            {"use": "directional_similarity"},
            {"use": "frechet"},
            {"use": "kid"},
            {"use": "cmmd", "config": {"encoder": SCENE_CLIP}},
        ),
        headline=("gain_over_copy", "fulfilment", "preservation", "change_f1", "ssim", "fid"),
        diagnostic=(
            "fid@n",
            "fd_scene-clip",
            "kid",
            "kid_scene-clip",
            "cmmd",
            "cmmd_scene-clip",
            "clip_score",
            "clip_score_scene-clip",
            "lpips",
            "psnr",
            "change_iou",
        ),
        only_named=False,
        baselines=(
            "copy_before",
            "blurred_copy",
            "mean_image",
            "noise",
            "other_future",
            "tokenizer_ceiling",
            "oracle",
        ),
        notes=(
            "Numbers of an encoder or detector carry its name; only the standard weights give 'fid', 'kid', 'cmmd' and 'clip_score': --set"
            " frechet.encoder=clean-fid-inception:FILE --set kid.encoder=clean-fid-inception:FILE --set"
            " cmmd.encoder=open_clip:ViT-L-14-336:openai#resize=crop-first --set clip_score.encoder=open_clip:ViT-B-32:openai.",
            "An invalid output counts as the worst there is: in gain_over_copy as the picture farthest from the truth, in psnr as 0 dB.",
            "Set distances are taken over valid outputs: compare them only at equal n and equal valid_rate. They are low for a copy of"
            " the input, which looks as real as the future; read them beside gain_over_copy and the rows of the baselines.",
            "directional_similarity is about 0 for a change that has nothing to do with the text, noise included.",
        ),
    ),
    Protocol(
        name="spectral-forecast",
        title="Forecasts in all bands of a raster",
        task=Task.FORECAST,
        source="this project; indices as their authors define them (see rsw_rewards.data.spectral)",
        components=(
            {"use": "spectral_direction"},
            {"use": "physical_range"},
            {"use": "gain_over_copy"},
            {"use": "change_consistency"},
        ),
        headline=(
            "spectral_agreement",
            "spectral_direction",
            "physical_range",
            "gain_over_copy",
            "fulfilment",
            "preservation",
        ),
        diagnostic=tuple(f"spectral_direction/{name}" for name in NAMES),
        baselines=("copy_before", "noise", "mean_image", "other_future", "oracle"),
        notes=(
            "A forecast holds all bands in the order and the numbers of the sample (GeoTIFF, .npy, .npz); a picture in RGB is invalid here.",
            "gain_over_copy and change_consistency look at the bands shown as red, green and blue; the indices at all that the sample names.",
            "spectral_direction looks at means, which noise and a mean picture may move the right way: read spectral_agreement first.",
            "An index is asked about where the true future moves it and the text, where it speaks of it, agrees: a sample that asks nothing"
            " is left out.",
        ),
    ),
    Protocol(
        name="txt2img-mhn-rsicd",
        title="RSICD images from captions (Txt2Img-MHN, Text2Earth)",
        task=Task.FORECAST,
        source="arXiv 2208.04441; the scripts of github.com/YonghaoXu/Txt2Img-MHN (is_fid_score, zero_shot_classification, clip_score.py),"
        " whose protocol Text2Earth (arXiv 2501.00895) follows",
        components=({"use": "fid_rsicd"}, {"use": "zero_shot_cls"}, {"use": "clip_rsicd"}),
        headline=("fid_rsicd", "fid_rsicd/own-images", "zero_shot_cls_oa", "clip_rsicd", "clip_rsicd_cos"),
        only_named=False,
        slices=False,
        baselines=("noise", "mean_image", "other_future", "oracle"),
        notes=(
            "Ten candidates a caption: --candidates 10, or ten lines per id in the predictions. A sample has no input image.",
            "All three need files: --set fid_rsicd.encoder=rsicd-inception:FILE (Inception-v3 fine-tuned on RSICD's 30 classes, which the"
            " authors did not publish: their pretrain_inception.py makes it), --set fid_rsicd.reference_list=RSICD_test.txt with"
            " --set fid_rsicd.reference_root=FOLDER, --set zero_shot_cls.weights=resnet18-f37072fd.pth, --set"
            " clip_rsicd.encoder=hf_clip:FOLDER.",
            "fid_rsicd depends on the weights that one fine-tuned oneself: never compare it with a FID, nor across fine-tunings.",
            "clip_rsicd is a dot product of features that are not normalised, by a hundredth, and no CLIPScore.",
            "Other futures and the oracle are real images: fid_rsicd/own-images of the oracle is 0.",
        ),
    ),
)
