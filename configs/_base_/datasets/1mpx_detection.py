# MMSNN_1MPX_ROOT=/path points every 1Mpx config here at your copy, with the folders train, val and
# test of NAME_td.dat (or NAME_td.dat.h5) and NAME_bbox.npy in it.
_base_ = './gen1_detection.py'
data_root = '{{$MMSNN_1MPX_ROOT:data/1mpx}}/'
# Labels come each 16 ms, and the metric takes predictions that are up to 50 ms away: with one in
# 100 ms, none counts for two times.
of_1mpx = dict(data_root=data_root, generation='1mpx', stride=100_000)
train_dataloader = dict(dataset=of_1mpx)
val_dataloader = dict(dataset=of_1mpx)
test_dataloader = dict(dataset=of_1mpx)
val_evaluator = dict(generation='1mpx')
test_evaluator = dict(generation='1mpx', protocols=['prophesee', 'rvt'])
