//! ROC, average precision, FROC, intervals, report; pure over prediction files
