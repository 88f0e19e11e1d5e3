"""What alignment changed in the pair that everybody meets: replies, judge, labels, figures."""
