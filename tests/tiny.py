"""A data set of ten images with configurable shapes, labels and file format."""

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Ten images that cycle through the given shapes; the builder is not registered with TFDS.

    Image i has the gray value 20 * i and, if the data set has labels, the label `label(i)`.
    """

    VERSION = tfds.core.Version('1.2.0')
    shapes = ((6, 6, 1),)
    label = None

    def _info(self):
        image = tfds.features.Image(shape=(None, None, self.shapes[0][-1]))
        features = {'image': image}
        if self.label:  # As in CIFAR-100, `label` is one of several label features.
            features['coarse_label'] = tfds.features.ClassLabel(names=['even', 'odd'])
            features['label'] = tfds.features.ClassLabel(names=['apple', 'bear', 'can', 'dolphin'])
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        for i in range(10):
            pixels = np.full(self.shapes[i % len(self.shapes)], 20 * i, np.uint8)
            record = {'image': PIL.Image.fromarray(pixels.squeeze())}
            if self.label:
                record |= {'coarse_label': i % 2, 'label': type(self).label(i)}
            yield i, record


def prepare_tiny(root, shapes, file_format='array_record', label=None):
    class Builder(Tiny, skip_registration=True):
        name = 'tiny'

    Builder.shapes, Builder.label = shapes, label
    Builder(data_dir=root, file_format=file_format).download_and_prepare()
